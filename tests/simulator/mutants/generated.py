"""Mutants that follow from the source: every guard of the machines is dropped once, and every bound moved by one.

A guard is a condition, or an operand of one that has several: `if`, conditional expressions, filters of
comprehensions, and the operands of `and` and `or`. Dropped, an operand of `and` is true, one of
`or` is false, a filter keeps everything, and an `if` that ends its function is never taken; any other `if` always
is. A bound is `<`, `<=`, `>` or `>=` between whole numbers: moved in time, it would differ at one instant only.
"""

import ast
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_SKIPPED = ("check", "_check_members", "_check_open_round", "_check_phase", "_check_history", "_handlers")
"""Functions that hold no rule of the protocol: invariants for tests, and the table of transitions."""

_WORDS_OF_TIME = ("now", "seconds", "held", "most <= least", "first < least", "limit", "issubset")


@dataclass(frozen=True, slots=True)
class Place:
    """One change of a source: the text from `begin` to `end` reads `new`.

    Attributes:
        key: names it within its module by function, kind of change and old code; the same after other changes.
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
    found: list[Place] = []
    lines = source.splitlines(keepends=True)
    starts = [0, *itertools.accumulate(map(len, lines))]

    def position(line: int, column: int) -> int:
        """In characters; ast counts the bytes of a line."""
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    for key, node, new in changes(ast.parse(source)):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        begin = position(node.lineno, node.col_offset)
        found.append(Place(key, begin, position(node.end_lineno, node.end_col_offset), new))
    return found


def changed(source: str, key: str) -> str:
    """The source with one change.

    Raises:
        KeyError: it has no such place.
    """
    place = {each.key: each for each in places(source)}[key]
    return source[: place.begin] + place.new + source[place.end :]


def changes(tree: ast.Module) -> Iterator[tuple[str, ast.expr, str]]:
    """The key of each change, the expression, and what stands there instead."""
    known: Counter[str] = Counter()
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.name not in _SKIPPED:
            for node in ast.walk(function):
                for changed_node, new, what in _of_node(node):
                    key = f"{function.name}: {what} {ast.unparse(changed_node)}"
                    known[key] += 1
                    number = f" #{known[key]}" if known[key] > 1 else ""
                    yield key + number, changed_node, new


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
