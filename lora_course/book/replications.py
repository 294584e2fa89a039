r"""What `make replicate` recorded: every checked result of every notebook, measured again and again elsewhere.

Each page has a table in replications/: a row for each quantity that a check looks at, a column for each variant.
The relation is evaluated on what was measured, so a relation that is restated is judged by the same runs.

Variants: plain; arithmetic (other instruction sets and kernels of the processor); threads (2 and 4); rounding (every
number that is drawn moved by a relative 2e-7); seeds (all that is drawn is drawn anew).
"""

import ast
import csv
import functools
import json
import re
import statistics
from pathlib import Path
from typing import NamedTuple

from .relation import Relation

FOLDER = Path(__file__).with_name("replications")
KINDS = {
    "arithmetic": "other arithmetic",
    "threads": "other numbers of threads",
    "rounding": "moved starts",
    "seeds": "other seeds",
}
ENOUGH = 3.0  # spreads between mean and bound: nearer than this is called thin


def kind_of(variant):
    r"""The kind of a variant: "seeds" of "seeds-3"; the plain run belongs to "arithmetic"."""
    return "arithmetic" if variant == "plain" else variant.partition("-")[0]


@functools.cache
def recorded(page, folder=FOLDER):
    r"""{check: {variant: {quantity: value}}} of a page such as "chapters/04_capacity"; empty if none was recorded.

    A check is the number of a claim ("S0-16") or the n-th guarded sentence of a cell ("noise-run/1").
    """
    path = Path(folder) / f"{page.rpartition('/')[2]}.csv"
    found = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                check, quantity = row.pop("check"), row.pop("quantity")
                for variant, value in row.items():
                    values = found.setdefault(check, {}).setdefault(variant, {})
                    if value:
                        values[quantity] = json.loads(value)
    return found


class Guard(NamedTuple):
    r"""One ``observed(says, relation, name=value, ...)`` of a notebook; ``check`` is cell and number: "run/1"."""

    check: str
    says: str
    relation: str
    measured: tuple


def guards(notebook):
    r"""The guarded sentences of a notebook (its JSON), in the order in which they run.

    Only calls that are statements of their cell count: the rules for notebooks allow no others.
    """
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        lines = "".join(cell["source"]).splitlines()
        tree = ast.parse("\n".join("pass" if re.match(r"[%!]", line) else line for line in lines))
        calls = [s.value for s in tree.body if isinstance(s, ast.Expr) and isinstance(s.value, ast.Call)]
        calls = [c for c in calls if getattr(c.func, "id", "") == "observed"]
        for number, call in enumerate(calls, 1):
            says, relation = map(ast.literal_eval, call.args)
            yield Guard(f"{cell['id']}/{number}", says, relation, tuple(k.arg for k in call.keywords))


@functools.cache
def origins(folder=FOLDER):
    r"""{page: {commit, versions, processor, seconds, ...}}: where each page's record comes from."""
    path = Path(folder) / "origins.json"
    return json.loads(path.read_text("utf8")) if path.is_file() else {}


class Replications:
    r"""How a relation fares in the recorded runs.

    Attributes:
        held: {variant: whether it held there}; a run in which a quantity is missing counts as broken.
        distance: from mean to bound in units of the spread, for the comparison that is nearest to its bound. Runs
            of the same seeds and runs of other seeds are looked at apart, each with the standard deviation of its
            own, and the smaller distance counts; infinite where nothing varies. Where both sides are positive in every
            run, the distance is that of differences or that of ratios (logarithms), whichever is larger: an error
            that is now a tenth and now a thousandth varies by a factor.
    """

    def __init__(self, relation, runs):
        complete = {v: values for v, values in runs.items() if relation.names <= set(values)}
        self.held = {v: v in complete and relation(**complete[v]) for v in runs}
        same = [values for v, values in complete.items() if kind_of(v) != "seeds"]
        other = [values for v, values in complete.items() if kind_of(v) == "seeds" or v == "plain"]
        self.distance = min((d for group in (same, other) for d in _distances(relation, group)), default=0.0)

    def count(self, kind=None):
        r"""(in how many it held, how many there are), of all variants or of one kind."""
        held = [holds for variant, holds in self.held.items() if kind in (None, kind_of(variant))]
        return sum(held), len(held)

    def stable(self):
        r"""Held wherever the seeds are the same, and in all other seeds but at most one of twenty."""
        held, seeds = self.count("seeds")
        everywhere = all(holds for variant, holds in self.held.items() if kind_of(variant) != "seeds")
        return everywhere and seeds - held <= seeds // 20

    def in_short(self):
        r"""One of three words by which the ledger is filtered."""
        if not all(self.held.values()):
            return "not in every one"
        return "held in every one" if _finite(self.distance) else "the same in every one"

    def in_words(self):
        r"""As readers see it: "held in 24 of 24 replications (5 of 5 ...)"."""
        held, runs = self.count()
        kinds = (f"{self.count(kind)[0]} of {self.count(kind)[1]} with {words}" for kind, words in KINDS.items())
        return f"held in {held} of {runs} replications: {', '.join(kinds)}"


def _distances(relation, group):
    differences = zip(*(relation.margins(values) for values in group), strict=True)
    ratios = zip(*(relation.margins(values, ratio=True) for values in group), strict=True)
    for plain, logarithms in zip(differences, ratios, strict=True):
        yield _distance(plain) if any(m != m for m in logarithms) else max(map(_distance, (plain, logarithms)))


def _distance(margins):
    if len(margins) < 2 or not all(map(_finite, margins)):
        return float("inf") if all(m >= 0 for m in margins) else -float("inf")
    spread, mean = statistics.stdev(margins), statistics.fmean(margins)
    if spread <= 1e-12 * max(map(abs, margins), default=0):
        return float("inf") if mean >= 0 else -float("inf")
    return mean / spread


def _finite(value):
    return value == value and abs(value) != float("inf")


def replications(claim):
    r"""The :class:`Replications` of a claim that a cell settles; None for others, and where none are recorded."""
    runs = recorded(claim.home).get(claim.id) if claim.relation else None
    return Replications(claim.relation, runs) if runs else None


class Judged(NamedTuple):
    r"""A checked result of a page with its record: a claim, or a guarded sentence."""

    page: str
    check: str
    says: str
    relation: str
    replications: Replications


def judged(root, claims, folder=FOLDER):
    r"""All checked results of the notebooks under ``root`` that have a record, those nearest to their bound first."""
    found = []
    for path in sorted(Path(root).glob("*/*.ipynb")):
        page = f"{path.parent.name}/{path.stem}"
        runs = recorded(page, folder)
        checks = [(c.id, c.says, c.relation) for c in claims.values() if c.home == page and c.relation]
        notebook = json.loads(path.read_text("utf8"))
        checks += [(g.check, g.says, Relation(g.relation)) for g in guards(notebook)]
        for check, says, relation in checks:
            if check in runs:
                found.append(Judged(page, check, says, relation.text, Replications(relation, runs[check])))
    return sorted(found, key=lambda j: (j.replications.stable(), j.replications.distance))
