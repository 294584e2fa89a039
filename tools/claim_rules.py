r"""How a notebook may use claims and guards of sentences (``observed``).

Ids, sentences and relations are written out, names are those of the ledger or the relation, values were measured.

A *typed* expression holds no measurement: literals, arithmetic on them, and names that a cell bound to such.
The rules read the code with ``ast`` and run nothing.
"""

import ast
import re
from typing import NamedTuple

from notebook_rules import Problem

from lora_course.book.relation import Relation

# calls that only rewrap a number, and the modules from which they may come
_WRAPPERS = set("int float bool abs round min max sum len tuple list range array asarray tensor as_tensor".split())
_WRAPPERS |= set("float16 float32 float64 int32 int64".split())
_MODULES = set("np numpy torch math builtins".split())


class ClaimUse(NamedTuple):
    r"""One ``claim(id).check(...)`` or ``.show()`` in a cell."""

    file: str
    cell: str
    id: str
    method: str


def parse_cell(source):
    r"""The syntax tree of a code cell; lines of magic count as empty. Raises SyntaxError."""
    lines = ["pass" if re.match(r"[%!]", line) else line for line in source.splitlines()]
    return ast.parse("\n".join(lines))


def called(node):
    r"""Last part of the name of what a call calls; "" if it has none."""
    return getattr(node.func, "id", getattr(node.func, "attr", ""))


def is_typed(node, names):
    r"""Whether an expression holds only what somebody typed; ``names`` are those bound to typed values."""
    match node:
        case ast.Constant() | ast.JoinedStr():
            return True
        case ast.Name():
            return node.id in names
        case ast.Call():
            inner = [*node.args, *(keyword.value for keyword in node.keywords)]
            owner = getattr(node.func, "value", None)
            if owner is not None and is_typed(owner, names):
                pass  # a method of something typed
            elif called(node) not in _WRAPPERS or not inner:
                return False
            elif owner is not None and getattr(owner, "id", "") not in _MODULES:
                return False
            return all(is_typed(part, names) for part in inner)
        case ast.Attribute() | ast.Subscript() | ast.Starred() | ast.NamedExpr():
            return is_typed(node.value, names)
        case ast.Tuple() | ast.List() | ast.Set() | ast.BinOp() | ast.UnaryOp() | ast.BoolOp():
            pass
        case ast.Dict() | ast.Compare() | ast.IfExp():
            pass
        case _:
            return False
    return all(is_typed(n, names) for n in ast.iter_child_nodes(node) if isinstance(n, ast.expr))


def _root(node):
    r"""The name at the left end of gaps["a"][0].b; "" if there is none."""
    while isinstance(node, (ast.Subscript, ast.Attribute)):
        node = node.value
    return getattr(node, "id", "")


def _bind(target, value, names, where):
    r"""Record in ``names`` (name -> cell) what an assignment makes of its targets."""
    if isinstance(target, (ast.Tuple, ast.List)):
        parts = getattr(value, "elts", None)
        fitting = parts is not None and len(parts) == len(target.elts)
        typed = [is_typed(v, names) for v in (parts if fitting else [value] * len(target.elts))]
        for part, known in zip(target.elts, typed, strict=True):
            _bind(part, ast.Constant(0) if known else None, names, where)
    elif isinstance(target, (ast.Subscript, ast.Attribute)):
        if value is None or not is_typed(value, names):
            names.pop(_root(target), None)
    elif isinstance(target, ast.Name):
        if value is not None and is_typed(value, names):
            names[target.id] = where
        else:
            names.pop(target.id, None)


def follow(statements, names, where, looped=False):
    r"""Record the bindings of statements in ``names``; what a branch decides or a loop counts is measured."""
    for node in statements:
        match node:
            case ast.Assign():
                for target in node.targets:
                    _bind(target, node.value, names, where)
            case ast.AnnAssign(value=ast.expr()):
                _bind(node.target, node.value, names, where)
            case ast.AugAssign():
                if looped or not is_typed(node.value, names):
                    names.pop(_root(node.target), None)
            case ast.Expr(value=ast.Call(func=ast.Attribute() as method)):
                names.pop(_root(method), None)  # values.append(...) fills what began as an empty list
            case ast.For():
                _bind(node.target, node.iter, names, where)
                follow([*node.body, *node.orelse], names, where, looped=True)
            case ast.While():
                follow([*node.body, *node.orelse], names, where, looped=True)
            case ast.With():
                follow(node.body, names, where, looped)
            case ast.FunctionDef() | ast.ClassDef():
                names.pop(node.name, None)
            case _:
                for part in ast.walk(node):
                    if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                        names.pop(part.id, None)
                    if isinstance(part, ast.alias):
                        names.pop(part.asname or part.name, None)


def _claims_in(node):
    r"""(claim call, method call or None) for each use of ``claim`` inside a statement."""
    outer = {
        part.func.value: part
        for part in ast.walk(node)
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute)
    }
    for part in ast.walk(node):
        if isinstance(part, ast.Call) and called(part) == "claim":
            yield part, outer.get(part)


def _is_shown(statement, last):
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call):
        return False
    return statement is last or called(statement.value) == "display"


def settling_call(entry):
    r"""The call that settles a claim of the ledger, as an author writes it."""
    names = ", ".join(f"{name}=..." for name in entry.measured)
    return f"claim({entry.id!r})." + (f"check({names})" if entry.settled == "cell" else "show()")


def _judge(call, method, claims, typed):
    r"""(id, name of the method, what is wrong with the use of a claim, if anything)."""
    arguments = [*call.args, *call.keywords]
    id = getattr(arguments[0], "value", None) if len(arguments) == 1 and call.args else None
    if not isinstance(id, str):
        return None, "", "the id of a claim must be written out: claim('S0-1')"
    if id not in claims:
        return None, "", f"there is no claim {id!r} in the ledger"
    entry, name = claims[id], method.func.attr if method else ""
    wanted = "check" if entry.settled == "cell" else "show"
    if name != wanted:
        return None, "", f"claim {id} is settled by {entry.settled}: write {settling_call(entry)} in one go"
    if method.args or any(keyword.arg is None for keyword in method.keywords):
        return id, name, f"claim {id}: write every measured value as name=value"
    got, measured = sorted(k.arg for k in method.keywords), sorted(entry.measured)
    if got != measured:
        return id, name, f"claim {id}: the names are {got}, the ledger has {measured}"
    for keyword in method.keywords:
        if is_typed(keyword.value, typed):
            text = ast.unparse(keyword.value)
            homes = sorted({typed[n.id] for n in ast.walk(keyword.value) if getattr(n, "id", "") in typed})
            bound = f", bound in cell {', '.join(map(repr, homes))}" if homes else ""
            return id, name, f"claim {id}: {keyword.arg}={text} is typed{bound}, it must be measured"
    return id, name, ""


def _judge_guard(call, top, typed):
    r"""What is wrong with a use of ``observed``; "" if nothing."""
    try:
        says, relation = map(ast.literal_eval, call.args)
        names = Relation(relation).names
    except (ValueError, TypeError) as error:
        return f"observed needs a sentence and a relation, both written out: {error}"
    if not isinstance(says, str) or not says.strip():
        return "observed must name the sentence that it guards"
    if not top:
        return f"observed({says!r}) must be a statement of its cell, in no loop, branch or function"
    got = [keyword.arg for keyword in call.keywords]
    if None in got or set(got) != names:
        return f"observed({says!r}): the relation uses {sorted(names)}, measured are {sorted(map(str, got))}"
    for keyword in call.keywords:
        if is_typed(keyword.value, typed):
            return f"observed({says!r}): {keyword.arg}={ast.unparse(keyword.value)} is typed, it must be measured"
    return ""


def guard_problems(notebook):
    r"""How a notebook uses ``observed``: written-out sentences and relations, measured values, never in a loop."""
    problems, typed = [], {}
    for name, cell, source in notebook.cells("code"):
        for statement in _tree(notebook, name, source, []).body:
            for call in (node for node in ast.walk(statement) if isinstance(node, ast.Call)):
                if called(call) != "observed":
                    continue
                what = _judge_guard(call, isinstance(statement, ast.Expr) and statement.value is call, typed)
                if not what and {"skip-execution", "raises-exception"} & set(cell["metadata"].get("tags", [])):
                    what = "observed stands in a cell that is not executed, or may fail"
                if what:
                    problems.append(Problem(notebook.file, name, what))
            follow([statement], typed, name)
    return problems


def claim_problems(notebook, claims):
    r"""(problems, uses): how a notebook uses claims, given the ledger {id: Claim}."""
    problems, uses, typed = [], [], {}
    for name, cell, source in notebook.cells("code"):
        tree = _tree(notebook, name, source, problems)
        for statement in tree.body:
            for call, method in _claims_in(statement):
                id, verb, what = _judge(call, method, claims, typed)
                if not what and not _is_shown(statement, tree.body[-1]):
                    what = f"claim {id}: show its box, as the cell's last expression or inside display(...)"
                if not what and {"skip-execution", "raises-exception"} & set(cell["metadata"].get("tags", [])):
                    what = f"claim {id}: this cell is not executed, or may fail"
                if what:
                    problems.append(Problem(notebook.file, name, what))
                if id:
                    uses.append(ClaimUse(notebook.file, name, id, verb))
            for node in ast.walk(statement):
                if isinstance(node, ast.alias) and node.name == "claim" and node.asname:
                    problems.append(Problem(notebook.file, name, "claim must be imported under its own name"))
            follow([statement], typed, name)
    return problems, uses


def _tree(notebook, name, source, problems):
    try:
        return parse_cell(source)
    except SyntaxError as error:
        problems.append(Problem(notebook.file, name, f"is no Python: {error}"))
        return ast.parse("")
