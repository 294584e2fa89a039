r"""Relations between measured quantities, such as "abs(branch_r2 - r / d) < 0.02", without Python's eval.

A relation is a Python expression over names, numbers, + - * / // % **, comparisons (chains too), and, or,
not, abs, min and max, and nothing else; its value is True or False.
"""

import ast
import math
import operator

_BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_COMPARE = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_CALLS = {"abs": abs, "min": min, "max": max}


class Relation:
    r"""A relation between named quantities; ``names`` are those that it uses.

    ``Relation("a < b")(a=1, b=2)`` is True. Raises ValueError on text that is no relation and says which part
    of it is not allowed; TypeError if ``text`` is no string.
    """

    def __init__(self, text):
        if not isinstance(text, str):
            raise TypeError(f"relation must be a string, got {text!r}")
        self.text = " ".join(text.split())
        try:
            self._tree = ast.parse(self.text, mode="eval").body
        except (SyntaxError, ValueError):
            raise ValueError(f"relation is no expression: {text!r}") from None
        self._check(self._tree)
        if not _is_truth(self._tree):
            raise ValueError(f"relation must be true or false, a comparison for instance: {self.text!r}")
        called = {node.func for node in ast.walk(self._tree) if isinstance(node, ast.Call)}
        nodes = ast.walk(self._tree)
        self.names = frozenset(n.id for n in nodes if isinstance(n, ast.Name) and n not in called)

    def _check(self, node):
        match node:
            case ast.Constant(value=bool() | int() | float()):
                parts = []
            case ast.Name():
                parts = []
            case ast.BinOp(op=op) if type(op) in _BINARY:
                parts = [node.left, node.right]
            case ast.UnaryOp(op=op) if type(op) in _UNARY or isinstance(op, ast.Not):
                parts = [node.operand]
            case ast.BoolOp():
                parts = node.values
            case ast.Compare() if all(type(op) in _COMPARE for op in node.ops):
                parts = [node.left, *node.comparators]
            case ast.Call(func=ast.Name(id=name), args=[_, *_], keywords=[]) if name in _CALLS:
                parts = node.args
            case _:
                raise ValueError(f"relation may not contain {ast.unparse(node)!r}: {self.text!r}")
        for part in parts:
            self._check(part)

    def __call__(self, **values):
        r"""Truth of the relation for these values.

        Raises KeyError if a name has no value, TypeError if a number stands where a truth value is needed,
        ArithmeticError on a division by zero.
        """
        return _truth(self._tree, values)

    def margins(self, values, ratio=False):
        r"""How far each comparison that must hold is from its bound (positive: it holds), in the order of the text.

        Of ``a < b`` it is b - a, or with ``ratio`` log(b / a), nan unless both are positive; of comparisons joined by
        "or" the largest; an equality and a bare truth value have none, which counts as infinitely far.
        """
        return _margins(self._tree, values, _log_ratio if ratio else operator.sub)

    def __repr__(self):
        return f"Relation({self.text!r})"


def _is_truth(node):
    match node:
        case ast.Compare():
            return True
        case ast.BoolOp():
            return all(map(_is_truth, node.values))
        case ast.UnaryOp(op=ast.Not()):
            return _is_truth(node.operand)
        case _:
            return isinstance(node, ast.Name)


def _truth(node, values):
    truth = _value(node, values)
    if not isinstance(truth, bool):
        raise TypeError(f"{ast.unparse(node)} must be true or false, got {truth!r}")
    return truth


def _value(node, values):
    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return values[node.id]
        case ast.BinOp():
            return _BINARY[type(node.op)](_value(node.left, values), _value(node.right, values))
        case ast.UnaryOp(op=ast.Not()):
            return not _truth(node.operand, values)
        case ast.UnaryOp():
            return _UNARY[type(node.op)](_value(node.operand, values))
        case ast.BoolOp(op=ast.And()):
            return all(_truth(part, values) for part in node.values)
        case ast.BoolOp():
            return any(_truth(part, values) for part in node.values)
        case ast.Compare():
            terms = [_value(part, values) for part in (node.left, *node.comparators)]
            pairs = zip(node.ops, terms, terms[1:], strict=False)
            return all(_COMPARE[type(op)](a, b) for op, a, b in pairs)
        case ast.Call():
            return _CALLS[node.func.id](*(_value(part, values) for part in node.args))


_TOWARDS = {ast.Lt: -1, ast.LtE: -1, ast.Gt: 1, ast.GtE: 1}


def _log_ratio(a, b):
    return math.log(a / b) if a > 0 and b > 0 else math.nan


def _margins(node, values, apart):
    far = float("inf") if _truth(node, values) else -float("inf")
    match node:
        case ast.BoolOp(op=ast.And()):
            return [margin for part in node.values for margin in _margins(part, values, apart)]
        case ast.BoolOp():
            options = [min(_margins(part, values, apart)) for part in node.values]
            return [math.nan if any(map(math.isnan, options)) else max(options)]
        case ast.UnaryOp(op=ast.Not()):
            return [-min(_margins(node.operand, values, apart))]
        case ast.Compare():
            terms = [_value(part, values) for part in (node.left, *node.comparators)]
            pairs = zip(node.ops, terms, terms[1:], strict=False)
            return [_TOWARDS[type(op)] * apart(a, b) if type(op) in _TOWARDS else far for op, a, b in pairs]
        case _:
            return [far]
