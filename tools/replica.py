r"""One replication of one notebook: its cells run in this process under a variant, and every check is written down.

    python tools/replica.py chapters/04_capacity.ipynb VARIANT OUT.json

``replicate.py`` starts this, each replication in a process of its own with the environment of its variant; so
nothing of a variant outlives it. Checks never stop it: what broke is recorded and the next cell runs.
"""

import ast
import contextlib
import io
import json
import os
import platform
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
MOVE = 2e-7  # relative: two units in the last place of float32, what another processor's rounding does
STRIDE = 1_000_003  # between the seeds of two replications: no list of seeds on a page is as long


def move_draws(number):
    r"""Kind (c): every number that is drawn is moved by a relative MOVE, up or down by the number itself.

    A function of the value alone, so that a start that is drawn twice is the same twice, and 0 stays 0.
    """

    def moved(x):
        if isinstance(x, torch.Tensor):
            return x * (1 + MOVE * torch.sin(x * (9973.0 + 101 * number))) if x.is_floating_point() else x
        x = np.asarray(x) if not isinstance(x, (float, np.ndarray)) else x
        return x * (1 + MOVE * np.sin(x * (9973.0 + 101 * number)))

    for name in ("randn", "rand", "normal", "randn_like", "rand_like"):
        plain = getattr(torch, name)
        setattr(torch, name, lambda *a, _plain=plain, **k: _same_leaf(_plain(*a, **k), moved))
    for name in ("normal_", "uniform_"):
        plain = getattr(torch.Tensor, name)

        def drawn(self, *a, _plain=plain, **k):
            _plain(self, *a, **k)
            with torch.no_grad():
                self.copy_(moved(self))
            return self

        setattr(torch.Tensor, name, drawn)

    class Moved(np.random.Generator):
        pass

    for name in ("standard_normal", "normal", "uniform", "random", "laplace", "exponential", "multivariate_normal"):

        def drawn(self, *a, _name=name, **k):
            return moved(getattr(np.random.Generator, _name)(self, *a, **k))

        setattr(Moved, name, drawn)
    plain_rng = np.random.default_rng
    np.random.default_rng = lambda seed=None: (
        seed if isinstance(seed, np.random.Generator) else Moved(plain_rng(seed).bit_generator)
    )
    from lora_course.labs.tinylm import weights

    tensors, metadata, seen = weights._file()  # the shipped network is the start of what is trained from it
    weights._file = lambda: ({name: moved(tensor.float()) for name, tensor in tensors.items()}, metadata, seen)


def _same_leaf(tensor, moved):
    needs = tensor.requires_grad
    return moved(tensor.detach()).requires_grad_(needs)


def other_seeds(number):
    r"""Kind (d): whatever draws by a seed gets another one, in the package and in the notebook."""
    shift, plain_rng = STRIDE * number, np.random.default_rng

    class Generator(torch.Generator):
        def manual_seed(self, seed):
            return super().manual_seed(seed + shift)

    torch.Generator = Generator
    plain_seed = torch.manual_seed
    torch.manual_seed = lambda seed: plain_seed(seed + shift)

    def default_rng(seed=None):
        if isinstance(seed, (int, np.integer)):
            seed = [int(seed), shift]
        elif isinstance(seed, (list, tuple, np.ndarray)):
            seed = [*map(int, seed), shift]
        return plain_rng(seed)

    np.random.default_rng = default_rng


class Recorder(ast.NodeTransformer):
    r"""Turns ``assert`` into a call that records the comparison and goes on."""

    def visit_Assert(self, node):
        r"""A conjunction is taken apart: each comparison has a margin of its own."""
        call = ast.parse("__replica__.asserted()", mode="eval").body
        parts = (
            node.test.values if isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.And) else [node.test]
        )
        call.args = [ast.Constant(ast.unparse(part)) for part in parts]
        sides = []
        for part in parts:
            terms = [part.left, *part.comparators] if isinstance(part, ast.Compare) else [part]
            ops = [type(op).__name__ for op in part.ops] if isinstance(part, ast.Compare) else []
            body = ast.Tuple([ast.Constant(tuple(ops)), ast.Tuple(terms, ast.Load())], ast.Load())
            sides.append(ast.Lambda(ast.arguments([], [], None, [], [], None, []), body))
        call.keywords = [ast.keyword("sides", ast.List(sides, ast.Load()))]
        return ast.fix_missing_locations(ast.copy_location(ast.Expr(call), node))


def _plain(value):
    r"""A number or truth value as JSON has it; None for what is neither."""
    try:
        value = value.item() if hasattr(value, "item") else value
    except (ValueError, RuntimeError):
        return None
    return value if isinstance(value, (bool, int, float)) else None


class Replica:
    r"""What one replication found: [{cell, check, holds, values}], in the order of the page."""

    def __init__(self):
        self.found, self.cell, self.count = [], "", {}

    def note(self, check, relation, values, holds):
        r"""Add one checked result."""
        self.found.append({"cell": self.cell, "check": check, "relation": relation, "values": values, "holds": holds})

    def asserted(self, *texts, sides):
        r"""Note each comparison of an assert: ``texts`` in words, ``sides`` as functions that evaluate its terms."""
        for text, side in zip(texts, sides, strict=True):
            name = f"assert {self.cell}: {text}"
            self.count[name] = self.count.get(name, 0) + 1
            try:
                ops, terms = side()
                holds, margin = _compare(ops, terms)
            except Exception as error:  # what the next conjunct would have raised behind a broken one
                holds, margin = False, None
                text = f"{text}  [{type(error).__name__}: {error}]"
            self.note(f"{name}#{self.count[name]}", text, {} if margin is None else {"margin": margin}, holds)


_OPS = {
    "Lt": (lambda a, b: a < b, -1), "LtE": (lambda a, b: a <= b, -1),
    "Gt": (lambda a, b: a > b, 1), "GtE": (lambda a, b: a >= b, 1),
    "Eq": (lambda a, b: a == b, 0), "NotEq": (lambda a, b: a != b, 0),
    "Is": (lambda a, b: a is b, 0), "IsNot": (lambda a, b: a is not b, 0),
    "In": (lambda a, b: a in b, 0), "NotIn": (lambda a, b: a not in b, 0),
}  # fmt: skip


def _compare(ops, terms):
    if not ops:
        return bool(terms[0]), None
    holds, margins = True, []
    for op, a, b in zip(ops, terms, terms[1:], strict=False):
        test, sign = _OPS[op]
        holds = holds and bool(test(a, b))
        left, right = _plain(a), _plain(b)
        if sign and left is not None and right is not None:
            margins.append(sign * (left - right))
    return holds, min(margins) if margins else None


def run(path, kind, number):
    r"""Run the notebook at ``path`` under a kind of variant; return the record."""
    from IPython.core.interactiveshell import InteractiveShell

    from lora_course import book
    from lora_course.book import claims
    from lora_course.book.observed import real_number

    if kind == "rounding":
        move_draws(number)
    elif kind == "seeds":
        other_seeds(number)
    replica, begin, errors = Replica(), time.perf_counter(), []

    def check(self, /, **measured):
        values = {name: real_number(self.id, name, measured[name]) for name in self.measured}
        holds = bool(self.relation(**values))
        replica.note(self.id, self.relation.text, values, holds)

    def observed(says, relation, /, **measured):
        relation = claims.Relation(relation)
        values = {name: real_number(says, name, value) for name, value in measured.items()}
        replica.count[replica.cell] = replica.count.get(replica.cell, 0) + 1
        replica.note(f"{replica.cell}/{replica.count[replica.cell]}", relation.text, values, relation(**values))

    claims.Claim.check, book.observed = check, observed
    shell = InteractiveShell.instance()
    shell.ast_transformers.append(Recorder())
    shell.user_ns["__replica__"] = replica
    notebook = json.loads(path.read_text("utf8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        replica.cell = cell["id"]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            result = shell.run_cell("".join(cell["source"]), store_history=False)
        error = result.error_before_exec or result.error_in_exec
        if error is not None:
            errors.append({"cell": cell["id"], "error": "".join(traceback.format_exception(error))[-3000:]})
    return {
        "checks": replica.found,
        "errors": errors,
        "seconds": round(time.perf_counter() - begin, 1),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "loaded": loaded(),
    }


def loaded():
    r"""The files of the package that have been loaded, but for those that only make pages, relative to the root."""
    modules = (getattr(module, "__file__", None) or "" for module in list(sys.modules.values()))
    files = {Path(file).resolve() for file in modules if file.endswith(".py")}
    ours = {file.relative_to(ROOT) for file in files if file.is_relative_to(ROOT / "lora_course")}
    data = {file.relative_to(ROOT) for file in (ROOT / "lora_course").rglob("*.csv")}
    return sorted(f.as_posix() for f in ours | data if f.parts[1] != "book")


if __name__ == "__main__":
    page, variant, out = Path(sys.argv[1]).resolve(), sys.argv[2], Path(sys.argv[3])
    kind, _, number = variant.partition("-")
    os.chdir(page.parent)
    record = run(page, kind, int(number) if number.isdigit() else 0)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record))
