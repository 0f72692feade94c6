"""Conditions on the statistics of units: `density < 0.01 and (max > 2 or layer == 3)`. Nothing is executed."""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.errors import UserError

Columns = Mapping[str, NDArray[Any]]
MAX_LENGTH = 1000

_COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}  # fmt: skip
HOW = 'compare columns with numbers by < <= > >= == !=, joined by and, or, not, such as "density < 0.01 and max > 1"'


def holds_where(condition: str, columns: Columns) -> NDArray[np.bool_]:
    """(n_units,) where the condition holds. columns: (n_units,) numbers by name.

    Refuses anything but comparisons of columns and numbers, joined by and, or, not; and an unknown column.
    """
    if len(condition) > MAX_LENGTH:
        raise UserError(
            f"--where is {len(condition)} characters long, more than {MAX_LENGTH}: give a shorter condition"
        )
    try:
        tree = ast.parse(condition.strip(), mode="eval").body
        found = _value(tree, columns, condition)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        raise _refused(condition) from None
    n_units = len(next(iter(columns.values())))
    if np.asarray(found).dtype != np.bool_:
        raise _refused(condition)
    return np.broadcast_to(np.asarray(found), (n_units,)).copy()


def check_where(condition: str) -> None:
    """Refuses what is no condition, whatever the columns are, so that nothing is read for it."""
    holds_where(condition, _AnyColumn())


class _AnyColumn(dict[str, NDArray[Any]]):
    """Columns of one unit, by any name: `dead` true or false, the others numbers."""

    def __init__(self) -> None:
        super().__init__(any=np.zeros(1))

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> NDArray[Any]:
        return np.zeros(1, bool if name == "dead" else float)


def _refused(condition: str) -> UserError:
    return UserError(f"--where {condition!r} cannot be read: {HOW}")


def _value(node: ast.expr, columns: Columns, condition: str) -> Any:
    match node:
        case ast.Name(id=name):
            if name not in columns:
                raise UserError(f"--where knows no {name!r}: choose from {', '.join(sorted(columns))}")
            return columns[name]
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return float(number)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -float(number)
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return ~_truth(inner, columns, condition)
        case ast.BoolOp(op=ast.And(), values=parts):
            return np.logical_and.reduce([_truth(part, columns, condition) for part in parts])
        case ast.BoolOp(op=ast.Or(), values=parts):
            return np.logical_or.reduce([_truth(part, columns, condition) for part in parts])
        case ast.Compare(left=left, ops=ops, comparators=rest):
            values = [_value(one, columns, condition) for one in (left, *rest)]
            return np.logical_and.reduce(
                [_COMPARED[type(op)](a, b) for op, a, b in zip(ops, values, values[1:], strict=False) if _known(op)]
            )
    raise _refused(condition)


def _truth(node: ast.expr, columns: Columns, condition: str) -> NDArray[np.bool_]:
    value = np.asarray(_value(node, columns, condition))
    if value.dtype != np.bool_:
        raise _refused(condition)
    return value


def _known(op: ast.cmpop) -> bool:
    if type(op) not in _COMPARED:
        raise ValueError
    return True
