"""Which seeds reach which generated mutants: where a guard decides otherwise than its mutant would.

All guards are watched in the same runs, so that a mutant has to be played only with seeds in which it differs.
"""

import ast
import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from simulator.mutants.generated import changes

_NAMES = [ast.alias("watch", "_watch"), ast.alias("watch_whole", "_watch_whole")]

_seed = 0
_reached: defaultdict[tuple[str, str], list[int]] = defaultdict(list)


def watch(module: str, key: str, value: Any, mutant: Any) -> Any:
    """Passes the value of a guard on, and notes the seed if the mutant's would be another."""
    if bool(value) != bool(mutant):
        _note(module, key)
    return value


def watch_whole(module: str, key: str, value: Any, mutant: Callable[[], Any]) -> Any:
    """The same for an operand: what counts is the whole condition, which another one may decide.

    Its value may be used as well, and not its truth alone: then another object is another value.
    """
    seeds = _reached[module, key]
    if seeds and seeds[-1] == _seed:
        return value
    try:
        other = mutant()
        differs = bool(value) != bool(other) or not (isinstance(value, bool) or value is other)
    except Exception:  # the operand kept the others from what they cannot do
        differs = True
    if differs:
        _note(module, key)
    return value


def _note(module: str, key: str) -> None:
    seeds = _reached[module, key]
    if not seeds or seeds[-1] != _seed:
        seeds.append(_seed)


class _Watcher(ast.NodeTransformer):
    def __init__(self, module: str, found: Iterable[tuple[str, ast.expr, str]]) -> None:
        self._module = module
        self._changes: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
        for key, node, new in found:
            self._changes[id(node)].append((key, new))

    def visit(self, node: ast.AST) -> Any:
        """The node with all guards in it watched."""
        wanted = self._changes.get(id(node), [])
        wholes = list(self._of_operands(node)) if isinstance(node, ast.BoolOp) else []
        after = self.generic_visit(node)
        for key, whole in wholes:
            later = ast.Lambda(ast.arguments([], [], None, [], [], None, []), whole)
            arguments = [ast.Constant(self._module), ast.Constant(key), after, later]
            after = ast.Call(ast.Name("_watch_whole", ast.Load()), arguments, [])
        for key, new in wanted:
            mutant = ast.parse(new, mode="eval").body
            arguments = [ast.Constant(self._module), ast.Constant(key), after, mutant]
            after = ast.Call(ast.Name("_watch", ast.Load()), arguments, [])
        return after

    def _of_operands(self, node: ast.BoolOp) -> Iterator[tuple[str, ast.BoolOp]]:
        """The key of each change of an operand, and the condition with it; no operand is watched by itself then."""
        for place, operand in enumerate(node.values):
            for key, new in self._changes.pop(id(operand), []):
                values = copy.deepcopy(node.values)
                values[place] = ast.parse(new, mode="eval").body
                yield key, ast.BoolOp(node.op, values)


def watched(source: str, module: str) -> ast.Module:
    """The module with every guard watched."""
    tree = ast.parse(source)
    found = list(changes(tree))
    tree = _Watcher(module, found).visit(tree)
    place = 1 if isinstance(tree.body[0], ast.Expr) else 0
    tree.body.insert(place, ast.ImportFrom("simulator.mutants.reach", _NAMES, 0))
    return ast.fix_missing_locations(tree)


def play_watched(seeds: Sequence[int]) -> dict[tuple[str, str], list[int]]:
    """Plays seeds in a process whose machines are watched; (module, key) → the first seeds that reach it."""
    global _seed
    from simulator.plan import plan_of
    from simulator.world import play

    for _seed in seeds:
        violation = play(plan_of(_seed)).violation
        assert not violation, f"seed {_seed} fails without a mutant: {violation}"
    return dict(_reached)
