r"""The ledger of claims: each claim's verdict, and the measured relation that it stands or falls with.

``claim("S0-1").check(branch_r2=..., layer_r2=...)`` evaluates the relation that the ledger names for S0-1 on
the measured values: it returns the box that the page shows. If the relation breaks, strict runs (tests and
publishing) raise :class:`ClaimBroken`, and elsewhere the box says that the claim did not hold in this run.
"""

import difflib
import functools
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from .claim_box import ClaimBox
from .observed import real_number, strict, truth
from .relation import Relation

LEDGER = Path(__file__).with_name("ledger")  # a folder: one file for each page that is a home

VERDICTS = ("true", "true if", "misleading", "false", "unsupported", "untestable")

# the five source texts, in the words in which readers meet them
SOURCES = {
    "000": "Why does LoRA's down-and-up projection lose nothing essential?",
    "001": "Low-rank matrices as a compressed representation",
    "002": "The LoRA figure explained, and B × A",
    "003": "Classroom script: a demonstration of rank",
    "004": "LoRA as a gauge field on a fiber bundle",
}

_COMMON = {"id", "says", "source", "verdict", "condition", "home", "settled"}
_SETTLED = {
    "cell": {"measured", "relation", "counterexample"},
    "derivation": {"test"},
    "source": {"citation", "place", "figure"},
    "not testable": {"reason"},
}


class ClaimBroken(AssertionError):
    r"""The measured values break the relation that the claim's verdict rests on."""


@dataclass(frozen=True)
class Claim:
    r"""One entry of the ledger; the fields are those of its files.

    ``settled`` says how: "cell" (then ``measured`` {name: what it is}, ``relation`` and ``counterexample``
    {name: value} are there), "derivation" (``test``), "source" (``citation``, ``place``, ``figure``) or
    "not testable" (``reason``). Raises ValueError on an entry that is not complete and sound.
    """

    id: str
    says: str
    source: str
    verdict: str
    condition: str
    home: str
    settled: str
    measured: dict = field(default_factory=dict)
    relation: Relation | None = None
    counterexample: dict = field(default_factory=dict)
    test: str = ""
    citation: str = ""
    place: str = ""
    figure: str = ""
    reason: str = ""

    def __post_init__(self):
        for name, allowed in (("verdict", VERDICTS), ("settled", _SETTLED), ("source", SOURCES)):
            if getattr(self, name) not in allowed:
                self._reject(f"{name} must be one of {list(allowed)}, got {getattr(self, name)!r}")
        if not re.fullmatch(r"[A-Z]\w*-\d+[a-z]?", self.id):
            self._reject("id must look like S0-1")
        if not re.fullmatch(r"(chapters|appendix)/\w+", self.home):
            self._reject(f"home must look like chapters/01_funnel, got {self.home!r}")
        if self.settled == "cell":
            self._check_cell()
        if self.settled == "derivation" and not re.fullmatch(r"tests/[\w/]+\.py(::\w+)+", self.test):
            self._reject(f"test must look like tests/theory/test_counting.py::test_name, got {self.test!r}")

    def _check_cell(self):
        names, used, counter = set(self.measured), self.relation.names, set(self.counterexample)
        if used != names:
            self._reject(f"relation uses {sorted(used)}, but measured has {sorted(names)}")
        if counter != names:
            self._reject(f"counterexample has {sorted(counter)}, but measured has {sorted(names)}")
        try:
            broken = not self.relation(**self.counterexample)
        except (ArithmeticError, TypeError) as error:
            self._reject(f"relation failed for the counterexample: {error}")
        if not broken:
            self._reject("counterexample must break the relation")

    def _reject(self, what):
        raise ValueError(f"the ledger, claim {self.id}: {what}")

    def check(self, /, **measured):
        r"""The box with the measured values; it says so if they break the relation (strict: :class:`ClaimBroken`).

        Raises TypeError if the names are not those of ``measured`` or a value is no real scalar (of Python,
        numpy or torch), ValueError if a value is not finite or the claim is not settled by a cell.
        """
        if self.settled != "cell":
            raise ValueError(f"claim {self.id} is settled by {self.settled}: use claim({self.id!r}).show()")
        missing = sorted(set(self.measured) - set(measured))
        unexpected = sorted(set(measured) - set(self.measured))
        if missing or unexpected:
            raise TypeError(f"claim {self.id}: missing names {missing}, unexpected names {unexpected}")
        what = f"claim {self.id}"
        values = {name: real_number(what, name, measured[name]) for name in self.measured}
        holds = truth(what, self.relation, values)
        if not holds and strict():
            got = ", ".join(f"{name} = {value!r}" for name, value in values.items())
            raise ClaimBroken(f"{what}: the relation '{self.relation.text}' does not hold: {got}")
        return ClaimBox(self, values, holds)

    def show(self):
        r"""The box of a claim that is settled by derivation or source, or cannot be tested.

        Raises ValueError if the claim is settled by a cell: its box needs measured values.
        """
        if self.settled == "cell":
            names = ", ".join(f"{name}=..." for name in self.measured)
            raise ValueError(f"claim {self.id} is settled by a cell: use claim({self.id!r}).check({names})")
        return ClaimBox(self, {})


def _number(text):
    r"""A number or a truth value as the ledger spells it."""
    truths = {"true": True, "false": False}
    if text in truths:
        return truths[text]
    number = float(text)
    return int(number) if number.is_integer() and "." not in text else number


class _Loader(yaml.BaseLoader):
    r"""Every scalar stays the text that it is (true, 000, 1e-3); a key that comes twice is an error."""

    def construct_mapping(self, node, deep=False):
        r"""As BaseLoader, but without silent overwriting."""
        keys = [self.construct_object(key) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"line {node.start_mark.line + 1}: the key {key!r} comes twice")
        return super().construct_mapping(node, deep)


def _entry(raw):
    if not isinstance(raw, dict) or "id" not in raw:
        raise ValueError(f"the ledger: every entry is a mapping with an id, got {raw!r}")
    where, settled = f"the ledger, claim {raw['id']}", raw.get("settled")
    wanted = _COMMON | _SETTLED.get(settled, set())
    missing, unknown = sorted(wanted - set(raw)), sorted(set(raw) - wanted)
    if missing or (unknown and settled in _SETTLED):
        raise ValueError(f"{where}: missing fields {missing}, unknown fields {unknown}")
    for name in sorted(wanted):
        mapping = name in ("measured", "counterexample")
        if not isinstance(raw[name], dict if mapping else str) or not raw[name]:
            raise ValueError(f"{where}: {name} must be {'a mapping' if mapping else 'text'}, got {raw[name]!r}")
    fields = {name: " ".join(v.split()) if isinstance(v, str) else v for name, v in raw.items()}
    if settled == "cell":
        try:
            fields["relation"] = Relation(raw["relation"])
            fields["counterexample"] = {name: _number(v) for name, v in raw["counterexample"].items()}
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return Claim(**fields) if settled in _SETTLED else Claim(**{k: fields[k] for k in _COMMON})


@functools.cache
def load_claims(path=LEDGER):
    r"""All claims of the ledger, {id: Claim}; ``path`` is its folder (files in order of names) or one file.

    Raises ValueError, naming claim and field, on an unknown verdict, source or way of settling, a missing or
    unknown field, an id or key that comes twice, a relation over other names than ``measured``, or a
    counterexample that does not break the relation.
    """
    path, entries = Path(path), []
    for file in sorted(path.glob("*.yml")) if path.is_dir() else [path]:
        found = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader) or []
        if not isinstance(found, list):
            raise ValueError(f"the ledger must be a list of claims, got a {type(found).__name__} in {file.name}")
        entries += found
    claims = {}
    for entry in map(_entry, entries):
        if entry.id in claims:
            raise ValueError(f"the ledger, claim {entry.id}: the id comes twice")
        claims[entry.id] = entry
    return claims


def claim(id):
    r"""The claim with this id; ValueError that lists near ids if there is none."""
    claims = load_claims()
    if id not in claims:
        near = difflib.get_close_matches(str(id), claims, n=5, cutoff=0.4)
        raise ValueError(f"there is no claim {id!r}; near ids are {near}")
    return claims[id]
