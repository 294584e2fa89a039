r"""Replications: what a variant changes and leaves, what is written down, and that the record fits the notebooks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import notebook_rules as rules  # noqa: E402
import replicate  # noqa: E402

from lora_course.book import replications  # noqa: E402
from lora_course.book.claims import load_claims  # noqa: E402
from lora_course.book.relation import Relation  # noqa: E402

PRELUDE = "import sys; sys.path[:0] = ['tools', '.']; import numpy as np, torch; from replica import *\n"


def draws(kind, number=1):
    r"""What a process draws under a kind of variant: torch and numpy, by functions and in place."""
    start = {"rounding": f"move_draws({number})", "seeds": f"other_seeds({number})", "": ""}[kind]
    code = f"""{start}
g = lambda: torch.Generator().manual_seed(3)
linear = torch.nn.Linear(4, 5, dtype=torch.float64)
parts = [torch.randn(6, generator=g(), dtype=torch.float64), torch.randn(6, generator=g(), dtype=torch.float64),
         torch.empty(6, dtype=torch.float64).uniform_(generator=g()), torch.zeros(2, dtype=torch.float64).normal_(0, 0)]
parts += [torch.from_numpy(np.random.default_rng(s).standard_normal(6)) for s in (5, [5, 6])]
parts.append(torch.randint(1000, (6,), generator=g()))
print(json.dumps([p.tolist() for p in parts]))"""
    done = subprocess.run([sys.executable, "-c", PRELUDE + code], cwd=ROOT, capture_output=True, text=True, check=True)
    return [np.array(part) for part in json.loads(done.stdout)]


def test_moved_draws_are_near_and_the_same_each_time_and_zero_stays():
    plain, moved = draws(""), draws("rounding")
    for a, b in zip(plain, moved, strict=True):
        assert np.all(np.abs(b - a) <= 2e-7 * np.abs(a))
    for i in (0, 2, 4, 5):
        assert np.any(plain[i] != moved[i])
    assert np.array_equal(moved[0], moved[1]) and not moved[3].any()
    assert np.any(draws("rounding", 2)[0] != moved[0])


def test_other_seeds_draw_everything_anew_and_no_two_alike():
    runs = [draws(""), draws("seeds", 1), draws("seeds", 2)]
    for i in (0, 2, 4, 5, 6):
        assert len({tuple(run[i]) for run in runs}) == 3
    for run in runs:
        assert np.array_equal(run[0], run[1])  # the same seed twice is the same draw twice


def notebook(tmp_path, *sources):
    r"""A notebook of these code cells, one `cell-N` each."""
    base = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [base | {"id": f"cell-{n}", "source": s.splitlines(keepends=True)} for n, s in enumerate(sources)]
    path = tmp_path / "one.ipynb"
    rules.write_notebook(path, {"cells": cells, "metadata": rules.METADATA, "nbformat": 4, "nbformat_minor": 5})
    return path


CELLS = (
    "import torch\nfrom lora_course.book import claim, observed\nx = torch.randn(3).abs().sum().item()",
    "observed('positive', 'x > 0', x=x)\nobserved('huge', 'x > bound', x=x, bound=x + 1)",
    "assert x > 0 and x == x + 1, 'no'\nassert all(x > y for y in [x])",
    "raise OSError('gone')",
    "claim('S0-1').check(branch_r2=x, layer_r2=x, r=2, d=4)",
)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setattr(replicate, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(replicate, "RECORDED", tmp_path / "recorded")
    return tmp_path


def test_a_run_records_every_check_and_stops_at_none(kept):
    measured = load_claims()["S0-1"].measured
    cells = [*CELLS[:-1], f"claim('S0-1').check({', '.join(f'{name}=x' for name in measured)})"]
    run = replicate.replicate(notebook(kept, *cells), "seeds-2")
    found = {entry["check"]: entry for entry in run["checks"]}
    assert found["cell-1/1"]["holds"] and not found["cell-1/2"]["holds"]
    assert set(found["cell-1/2"]["values"]) == {"x", "bound"}
    assert found["assert cell-2: x > 0#1"]["holds"] and found["assert cell-2: x > 0#1"]["values"]["margin"] > 0
    assert not found["assert cell-2: x == x + 1#1"]["holds"]
    assert not found["assert cell-2: all((x > y for y in [x]))#1"]["holds"]
    assert [error["cell"] for error in run["errors"]] == ["cell-3"] and "OSError: gone" in run["errors"][0]["error"]
    assert set(found["S0-1"]["values"]) == set(measured)


def test_only_what_changed_runs_again(kept):
    r"""A restated bound asks for no new run, another computation does."""
    path = notebook(kept, CELLS[0], "observed('huge', 'x > 9', x=x)\nassert x > 7")
    first = replicate.replicate(path, "plain")
    path = notebook(kept, CELLS[0], "# restated\nobserved('positive', 'x > 0', x=x)\nassert x > 0")
    assert replicate.kept(path, "plain") == first
    assert replicate.kept(path, "seeds-1") is None
    [(check, relation, result, _)] = replicate.judged(path, replicate.kept_runs(path, ["plain"]))
    assert (check, relation, result.count()) == ("cell-1/1", "x > 0", (1, 1))
    assert replicate.kept(notebook(kept, CELLS[0], "observed('twice', 'x > 0', x=2 * x)"), "plain") is None


def test_the_record_is_written_when_all_variants_are_there(kept, monkeypatch):
    path = notebook(kept, CELLS[0], "observed('positive', 'x > 0', x=x)")
    run = replicate.replicate(path, "plain")
    monkeypatch.setattr(sys, "argv", ["replicate", "--table", str(path)])
    assert replicate.main() == 0 and not (kept / "recorded").exists()
    for variant in replicate.VARIANTS:
        (kept / "kept/one" / f"{variant}.json").write_text(json.dumps(run))
    assert replicate.main() == 0
    runs = replications.recorded("chapters/one", kept / "recorded")
    assert list(runs) == ["cell-1/1"] and list(runs["cell-1/1"]) == list(replicate.VARIANTS)
    assert runs["cell-1/1"]["seeds-3"]["x"] == pytest.approx(run["checks"][0]["values"]["x"], rel=1e-6)
    origin = json.loads((kept / "recorded/origins.json").read_text())["one"]
    shutil.rmtree(kept / "kept")  # on another machine the record stands for the runs
    assert replicate.kept(path, "seeds-3")["rows"]["cell-1/1"]["x"] == pytest.approx(run["checks"][0]["values"]["x"])
    assert replicate.kept(notebook(kept, CELLS[0], "observed('positive', 'x > 0', x=3 * x)"), "seeds-3") is None
    assert {"computation", "commit", "python", "torch", "numpy", "processor", "date", "seconds"} <= set(origin)


def test_any_executor_serves_and_nothing_of_a_variant_outlives_it(kept):
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

    path, before = notebook(kept, CELLS[0], "observed('positive', 'x > 0', x=x)"), dict(os.environ)
    with ThreadPoolExecutor(2) as pool:
        assert replicate.run_all([path], ["plain", "arithmetic-1", "threads-2"], pool) == []
    assert dict(os.environ) == before
    with ProcessPoolExecutor(1) as pool:  # nothing is left to do
        assert replicate.run_all([path], ["plain"], pool) == []


def test_the_variants_are_as_many_as_promised():
    kinds = [replications.kind_of(variant) for variant in replicate.VARIANTS]
    assert len(kinds) >= 24 and kinds.count("arithmetic") >= 5 and kinds.count("threads") >= 2
    assert kinds.count("rounding") >= 8 and kinds.count("seeds") >= 8
    assert replicate.environment("threads-4")["OMP_NUM_THREADS"] == "4"
    assert replicate.environment("plain")["OMP_NUM_THREADS"] == "1"


def test_each_day_has_its_pair_and_a_week_has_all():
    files = [n.file for n in rules.book_notebooks()]
    pairs = [[str(p.relative_to(ROOT)) for p in replicate.pair(day)] for day in range(7)]
    assert sorted(sum(pairs, [])) == sorted(files) and all(len(pair) == 2 for pair in pairs)


# --- the record that is committed

PAGES = [notebook.file.removesuffix(".ipynb") for notebook in rules.book_notebooks()]
every_page = pytest.mark.parametrize("page", PAGES)


def checks_of(page):
    r"""{check: names of its quantities} of a page as it is now."""
    content = json.loads((ROOT / f"{page}.ipynb").read_text("utf8"))
    checks = {guard.check: set(guard.measured) for guard in replications.guards(content)}
    return checks | {c.id: set(c.measured) for c in load_claims().values() if c.home == page and c.relation}


LEAST = {"arithmetic": 2, "threads": 1, "rounding": 1, "seeds": 9}  # `make replicate` adds the rest, 24 in all


@every_page
def test_every_checked_result_is_recorded(page):
    runs = replications.recorded(page)
    for check, names in checks_of(page).items():
        assert check in runs, f"{check} has no replications: run make replicate"
        kinds = [replications.kind_of(variant) for variant in runs[check]]
        assert "plain" in runs[check] and all(kinds.count(kind) >= least for kind, least in LEAST.items())
        assert set(runs[check]) <= set(replicate.VARIANTS)
        assert set().union(*runs[check].values()) == names, f"{check} measures something else now: run make replicate"


@every_page
def test_every_checked_result_holds_elsewhere(page):
    r"""Wherever the seeds are the same, in all others but one of twenty, and three spreads from its bound."""
    content = json.loads((ROOT / f"{page}.ipynb").read_text("utf8"))
    relations = {guard.check: Relation(guard.relation) for guard in replications.guards(content)}
    relations |= {c.id: c.relation for c in load_claims().values() if c.home == page and c.relation}
    thin = []
    for check, runs in replications.recorded(page).items():
        if check in relations:
            found = replications.Replications(relations[check], runs)
            if not found.stable() or found.distance < replications.ENOUGH:
                thin.append(f"{check} ({relations[check].text}): {found.in_words()}, {found.distance:.1f} spreads")
    assert thin == []


@every_page
def test_exact_checks_held_in_every_replication(page):
    runs = replications.recorded(page)
    exact = {check: found for check, found in runs.items() if check.startswith("assert ")}
    assert [check for check, found in exact.items() if not all(values["holds"] for values in found.values())] == []
