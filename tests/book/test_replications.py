r"""The record of replications: what held, how far from the bound in spreads, and what of it the pages say."""

import json
import math
import statistics

import pytest

from lora_course.book import replications as book
from lora_course.book.claims import load_claims
from lora_course.book.relation import Relation
from lora_course.book.replications import Replications, guards, judged, kind_of, recorded


def runs(values, kind="seeds"):
    return {f"{kind}-{i}": {"a": value} for i, value in enumerate(values, 1)}


@pytest.mark.parametrize(
    "text,values,margins",
    [
        ("a < 3", {"a": 1}, [2]),
        ("a >= 3", {"a": 1}, [-2]),
        ("0 < a < 3", {"a": 1}, [1, 2]),
        ("a > 0 and b < 1", {"a": 2, "b": 0.5}, [2, 0.5]),
        ("a > 5 or a < 3", {"a": 1}, [2]),
        ("not a > 5", {"a": 1}, [4]),
        ("abs(a - b) < 2", {"a": 1, "b": 2}, [1]),
        ("a == 1", {"a": 1}, [math.inf]),
        ("a == 1 and b > 0", {"a": 2, "b": 1}, [-math.inf, 1]),
        ("a", {"a": True}, [math.inf]),
    ],
)
def test_a_margin_is_positive_exactly_where_the_comparison_holds(text, values, margins):
    relation = Relation(text)
    assert relation.margins(values) == margins
    assert relation(**values) is all(margin > 0 for margin in margins)


def test_distance_is_mean_over_standard_deviation_of_the_nearest_comparison():
    values = [1.0, 1.1, 1.3]
    found = Replications(Relation("a > -0.5 and a < 9"), runs(values))
    assert found.distance == pytest.approx((statistics.fmean(values) + 0.5) / statistics.stdev(values))


def test_what_varies_by_factors_is_measured_by_factors():
    r"""Between 0.01 and 100, all above 0.001: differences would call it thin because of its largest values."""
    values = [0.01, 0.1, 1.0, 10.0, 100.0]
    logarithms = [math.log(value / 1e-5) for value in values]
    found = Replications(Relation("a > 1e-5"), runs(values)).distance
    assert found == pytest.approx(statistics.fmean(logarithms) / statistics.stdev(logarithms))
    assert found > 3 > statistics.fmean(values) / statistics.stdev(values)


def test_ratios_count_only_where_both_sides_are_positive():
    values = [-0.01, 0.1, 1.0]
    found = Replications(Relation("a > -0.02"), runs(values)).distance
    assert found == pytest.approx((statistics.fmean(values) + 0.02) / statistics.stdev(values))
    assert math.isnan(Relation("a > 1 or b > 1").margins({"a": -1, "b": 2}, ratio=True)[0])


def test_runs_of_the_same_seeds_and_of_others_are_looked_at_apart():
    r"""Many runs that hardly differ do not make the few that do look safe."""
    still = runs([1.0, 1.0001] * 8, "rounding")
    wide = runs([0.6, 1.6, 1.1])
    assert Replications(Relation("a > 0.5"), still).distance > 1000
    assert Replications(Relation("a > 0.5"), still | wide).distance == Replications(Relation("a > 0.5"), wide).distance


def test_what_never_varies_is_infinitely_far():
    assert Replications(Relation("a == 3"), runs([3, 3, 3])).distance == math.inf
    assert Replications(Relation("a < 4"), runs([3, 3, 3])).in_short() == "the same in every one"


def test_a_missing_quantity_counts_as_broken():
    found = Replications(Relation("a > 0"), runs([1, 1]) | {"rounding-1": {}})
    assert found.count() == (2, 3) and found.count("rounding") == (0, 1) and not found.stable()


@pytest.mark.parametrize("broken,seeds,stable", [(0, 9, True), (1, 9, False), (1, 20, True), (2, 20, False)])
def test_one_seed_of_twenty_may_break(broken, seeds, stable):
    assert Replications(Relation("a > 0"), runs([-1] * broken + [1] * (seeds - broken))).stable() is stable


def test_no_other_arithmetic_may_break():
    assert not Replications(Relation("a > 0"), runs([1] * 30 + [-1], "arithmetic")).stable()
    assert kind_of("plain") == "arithmetic" and kind_of("rounding-3") == "rounding"


def test_in_words_names_what_was_varied():
    found = Replications(Relation("a > 0"), {"plain": {"a": 1}} | runs([1, -1]) | runs([1], "threads"))
    assert found.in_words() == (
        "held in 3 of 4 replications: 1 of 1 with other arithmetic, 1 of 1 with other numbers of threads, "
        "0 of 0 with moved starts, 1 of 2 with other seeds"
    )


CELL = {"cell_type": "code", "id": "run", "source": ["observed('small', 'a < 2', a=f())\n", "x = 3"]}


def test_record_is_read_and_the_thinnest_comes_first(tmp_path):
    (tmp_path / "chapters").mkdir()
    (tmp_path / "chapters/01_one.ipynb").write_text(json.dumps({"cells": [CELL]}))
    (tmp_path / "01_one.csv").write_text(
        "check,quantity,plain,seeds-1,seeds-2\nS0-1,low,1,1.5,1.25\nS0-1,high,2,2,2\nrun/1,a,1,1.9,1.1\nrun/1,ok,true,,true\n"
    )
    (tmp_path / "ledger.yml").write_text(
        '- {id: S0-1, says: x, source: 000, verdict: "true", condition: y, home: chapters/01_one, settled: cell,\n'
        "   measured: {low: l, high: h}, relation: low < high, counterexample: {low: 2, high: 1}}\n"
    )
    runs = recorded("chapters/01_one", tmp_path)
    assert runs["S0-1"]["seeds-1"] == {"low": 1.5, "high": 2}
    assert runs["run/1"]["plain"]["ok"] is True and "ok" not in runs["run/1"]["seeds-1"]
    found = judged(tmp_path, load_claims(tmp_path / "ledger.yml"), tmp_path)
    assert [(j.check, j.says, j.replications.count()) for j in found] == [
        ("run/1", "small", (3, 3)),
        ("S0-1", "x", (3, 3)),
    ]
    assert recorded("chapters/02_two", tmp_path) == {}


def test_only_statements_of_a_cell_are_guards():
    nested = CELL | {"source": ["for x in y:\n", "    observed('small', 'a < 2', a=x)"]}
    assert [g.check for g in guards({"cells": [CELL, nested, {"cell_type": "markdown"}]})] == ["run/1"]


def test_every_kind_has_words():
    assert set(book.KINDS) == {"arithmetic", "threads", "rounding", "seeds"}
