"""Which seeds reach which generated mutants: where a guard decides otherwise than its mutant would.

All guards are watched in the same runs, so that a mutant has to be played only with seeds in which it differs.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from simulator.mutants.generated import changes

_MOST_SEEDS = 40
"""Kept of each guard."""

_seed = 0
_reached: defaultdict[tuple[str, str], list[int]] = defaultdict(list)


def watch(module: str, key: str, value: Any, mutant: Any) -> Any:
    """Passes the value of a guard on, and notes the seed if the mutant's would be another."""
    if bool(value) != bool(mutant):
        seeds = _reached[module, key]
        if len(seeds) < _MOST_SEEDS and (not seeds or seeds[-1] != _seed):
            seeds.append(_seed)
    return value


class _Watcher(ast.NodeTransformer):
    def __init__(self, module: str, found: Iterable[tuple[str, ast.expr, str]]) -> None:
        self._module = module
        self._changes: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
        for key, node, new in found:
            self._changes[id(node)].append((key, new))

    def visit(self, node: ast.AST) -> Any:
        """The node with all guards in it watched."""
        wanted = self._changes.get(id(node), [])
        after = self.generic_visit(node)
        for key, new in wanted:
            mutant = ast.parse(new, mode="eval").body
            arguments = [ast.Constant(self._module), ast.Constant(key), after, mutant]
            after = ast.Call(ast.Name("_watch", ast.Load()), arguments, [])
        return after


def watched(source: str, module: str) -> ast.Module:
    """The module with every guard watched."""
    tree = ast.parse(source)
    found = list(changes(tree))
    tree = _Watcher(module, found).visit(tree)
    place = 1 if isinstance(tree.body[0], ast.Expr) else 0
    tree.body.insert(place, ast.ImportFrom("simulator.mutants.reach", [ast.alias("watch", "_watch")], 0))
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
