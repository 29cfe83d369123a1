"""Mutants that follow from the source: every guard of the machines is dropped once, and every bound moved by one.

A guard is a condition, or an operand of one that has several: `if`, conditional expressions, filters of
comprehensions, and the operands of `and` and `or`. Dropped, an operand of `and` is true, one of
`or` is false, a filter keeps everything, and an `if` that ends its function is never taken; any other `if` always
is. A bound is `<`, `<=`, `>` or `>=` between whole numbers: moved in time, it would differ at one instant only.
"""

import ast
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

_SKIPPED = ("check", "_check_members", "_check_open_round", "_check_phase", "_check_history", "_handlers")
"""Functions that hold no rule of the protocol: invariants for tests, and the table of transitions."""

_WORDS_OF_TIME = ("now", "seconds", "held", "most <= least", "first < least", "limit", "issubset")


@dataclass(frozen=True, slots=True)
class Place:
    """One change of a source: the text from `begin` to `end` reads `new`.

    Attributes:
        key: names it within its module: function, kind of change, and the old text; the same after other changes.
        begin: of the text, in characters.
        end: likewise.
        new: what stands there instead.
    """

    key: str
    begin: int
    end: int
    new: str


def places(source: str) -> list[Place]:
    """All changes of a source, in its order; their keys are distinct."""
    found: dict[str, Place] = {}
    lines = source.splitlines(keepends=True)
    starts = [0, *itertools.accumulate(map(len, lines))]

    def position(line: int, column: int) -> int:
        """In characters; ast counts the bytes of a line."""
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    for function, node, new, what in _changes(ast.parse(source)):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        begin = position(node.lineno, node.col_offset)
        end = position(node.end_lineno, node.end_col_offset)
        key = f"{function}: {what} {' '.join(source[begin:end].split())}"
        number = sum(1 for known in found if known.split(" #")[0] == key)
        key = f"{key} #{number + 1}" if number else key
        found[key] = Place(key, begin, end, new)
    return list(found.values())


def changed(source: str, key: str) -> str:
    """The source with one change.

    Raises:
        KeyError: it has no such place.
    """
    place = {each.key: each for each in places(source)}[key]
    return source[: place.begin] + place.new + source[place.end :]


def _changes(tree: ast.Module) -> Iterator[tuple[str, ast.expr, str, str]]:
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.name not in _SKIPPED:
            for node in ast.walk(function):
                for changed_node, new, what in _of_node(node):
                    yield function.name, changed_node, new, what


def _of_node(node: ast.AST) -> Iterator[tuple[ast.expr, str, str]]:
    match node:
        case ast.If(test=test) if not isinstance(test, ast.BoolOp):
            ends = isinstance(node.body[-1], ast.Return | ast.Raise | ast.Continue)
            yield test, "False" if ends else "True", "never" if ends else "always"
        case ast.IfExp(test=test) if not isinstance(test, ast.BoolOp):
            yield test, "True", "always"
        case ast.comprehension(ifs=filters):
            for test in filters:
                if not isinstance(test, ast.BoolOp):
                    yield test, "True", "no filter"
        case ast.BoolOp(op=operator, values=operands):
            for operand in operands:
                yield operand, "True" if isinstance(operator, ast.And) else "False", "without"
        case ast.Compare(ops=[ast.Lt() | ast.LtE() | ast.Gt() | ast.GtE()]) if not _is_of_time(node):
            yield node, _moved(node), "bound"
        case _:
            pass


def _is_of_time(node: ast.Compare) -> bool:
    return any(word in ast.unparse(node) for word in _WORDS_OF_TIME)


def _moved(node: ast.Compare) -> str:
    """The comparison with its bound moved by one: `<` and `<=` exchanged, as are `>` and `>=`."""
    others: dict[type[ast.cmpop], ast.cmpop] = {
        ast.Lt: ast.LtE(),
        ast.LtE: ast.Lt(),
        ast.Gt: ast.GtE(),
        ast.GtE: ast.Gt(),
    }
    moved = ast.Compare(node.left, [others[type(node.ops[0])]], node.comparators)
    return f"({ast.unparse(moved)})"
