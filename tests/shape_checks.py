"""Checks the types and the shapes of what functions of some packages take and return, while tests run them.

An import hook of jaxtyping decorates each function, and `checked` says with what. Two things keep the checks quick:

* A function gets its checker at its first call: a process of tests imports every module and calls few functions.
* A function with shapes in its signature is checked once for each combination of what a check can depend on: the
  types, dtypes and shapes of its arguments and of its result. To look this up takes a tenth of a check.
"""

import collections.abc
import dataclasses
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import beartype
import beartype.door
import jaxtyping
import numpy as np

_CONFIGURATION = beartype.BeartypeConf(is_pep484_tower=True)
"""beartype, with the rule of PEP 484 (and of mypy) that an int is good where a float is asked for."""
_NAME = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
"""The same as the import hook takes it; compiled modules are kept under this text."""
_UNCHECKED = {"cospan.client.workloads.models.microgrids"}
"""beartype cannot read a subscripted generic NamedTuple (`Arithmetic[float]`) and refuses the module."""
_MOST_SHAPES = 4096
_MOST_ITEMS = 32
_jaxtyped = jaxtyping.jaxtyped

Checker = Callable[[Any], Any]


class _UnknownKindError(Exception):
    """What a check of this value depends on cannot be said."""


def install(packages: tuple[str, ...]) -> None:
    """Checks functions of these packages, none of which may have been imported before.

    Raises:
        RuntimeError: a module of theirs has been imported.
    """
    if loaded := sorted(name for name in sys.modules if name.startswith(packages)):
        raise RuntimeError(f"imported before the hook that checks shapes: {', '.join(loaded)}")
    jaxtyping.jaxtyped = _decorator
    finder = jaxtyping.install_import_hook(packages, _NAME).hook
    should_instrument = finder.should_instrument
    finder.should_instrument = lambda name: name not in _UNCHECKED and should_instrument(name)


def _decorator(*, typechecker: Checker) -> Checker:
    """What the import hook puts above each function and class."""
    del typechecker  # the one of _CONFIGURATION
    return checked


def checked(thing: Any) -> Any:
    """The function, checked at each call; a dataclass, checked where it is made; another class as it is."""
    if inspect.isclass(thing):
        if dataclasses.is_dataclass(thing) and "__init__" in vars(thing):
            thing.__init__ = checked(thing.__init__)
        return thing
    if not inspect.isfunction(thing):
        return _jaxtyped(thing, typechecker=_beartyped)
    if _is_resumed(thing):
        return _jaxtyped(thing, typechecker=_beartyped) if _has_shapes_in(thing) else _beartyped(thing)
    if not thing.__annotations__:
        return thing
    return _checked_per_shape(thing) if _has_shapes_in(thing) else _checked_when_called(thing)


def _beartyped(function: Any) -> Any:
    return beartype.beartype(conf=_CONFIGURATION)(function)


def _is_resumed(function: Any) -> bool:
    """Whether a call returns before the body has run: its result is checked by what runs the body."""
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    return any(is_kind(function) for is_kind in kinds)


def _checked_when_called(function: Any) -> Any:
    """The function with a checker that is made at the first call."""
    checker: Checker | None = None

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal checker
        if checker is None:
            checker = _beartyped(function)
        return checker(*args, **kwargs)

    return call


def _checked_per_shape(function: Any) -> Any:
    """The function, checked wherever its arguments and its result together are of kinds that it has not seen."""
    checker: Checker | None = None
    hints: dict[str, Any] | None = None
    seen: dict[Hashable, set[Hashable]] = {}
    sampled = any(map(_is_sampled, function.__annotations__.values()))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal checker, hints
        if checker is None:
            checker, hints = _jaxtyped(function, typechecker=_beartyped), _hints_of(function)
        if hints is None:
            return checker(*args, **kwargs)
        try:
            given = _kinds(args, sampled), tuple(kwargs), _kinds(kwargs.values(), sampled)
        except _UnknownKindError:
            return checker(*args, **kwargs)
        results = seen.get(given)
        result = checker(*args, **kwargs) if results is None else function(*args, **kwargs)
        try:
            returned = _kind(result, sampled)
        except _UnknownKindError:
            if results is not None:
                _check(function, hints, args, kwargs, result)
            return result
        if results is None or returned not in results:
            if results is not None:
                _check(function, hints, args, kwargs, result)
            if len(seen) < _MOST_SHAPES:
                seen.setdefault(given, set()).add(returned)
        return result

    return call


def _hints_of(function: Any) -> dict[str, Any] | None:
    """Its annotations; None where one of them names what is imported for type checkers alone."""
    try:
        return typing.get_type_hints(function)
    except NameError:
        return None


def _check(
    function: Any, hints: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
) -> None:
    """Checks arguments and result of a call that has returned."""
    signature = inspect.signature(function)
    values = {name: [value] for name, value in signature.bind(*args, **kwargs).arguments.items()}
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL and name in values:
            values[name] = list(*values[name])
        elif parameter.kind is parameter.VAR_KEYWORD and name in values:
            values[name] = list(values[name][0].values())
    values["return"] = [result]
    with _jaxtyped("context"):
        for name, hint in hints.items():
            for value in values.get(name, ()):
                beartype.door.die_if_unbearable(value, hint, conf=_CONFIGURATION)


def _kinds(values: Iterable[Any], sampled: bool) -> tuple[Hashable, ...]:
    return tuple([_kind(value, sampled) for value in values])


def _kind(value: Any, sampled: bool) -> Hashable:
    """All of a value that a check can depend on.

    Args:
        value: an argument or a result.
        sampled: whether the checker looks at one random item of a container. Then all items must be of one kind.

    Raises:
        _UnknownKindError: it is a container of several kinds that is sampled, a long one, or no list and no tuple.
    """
    kind = type(value)
    if kind is np.ndarray:
        return value.dtype, value.shape
    if kind is tuple or kind is list:
        if len(value) > _MOST_ITEMS:
            raise _UnknownKindError
        items = _kinds(value, sampled)
        if not sampled:
            return kind, items
        if len(different := set(items)) > 1:
            raise _UnknownKindError
        return kind, tuple(different)
    if _is_told_by_its_type(kind):
        return kind
    raise _UnknownKindError


@functools.cache
def _is_told_by_its_type(kind: type) -> bool:
    """Whether a check of a value of this type can look at nothing but the type."""
    if issubclass(kind, str | bytes | np.generic) or hasattr(kind, "_fields"):
        return True
    return not issubclass(kind, type | collections.abc.Iterable)


def _is_sampled(annotation: Any) -> bool:
    """Whether the checker looks at one random item of a container that has this annotation, or of a part of it."""
    if isinstance(annotation, str):
        return True
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if inspect.isclass(origin) and issubclass(origin, collections.abc.Iterable):
        fixed = origin is tuple and Ellipsis not in parts
        return not fixed or any(map(_is_sampled, parts))
    return any(map(_is_sampled, parts))


def _has_shapes(annotation: Any) -> bool:
    """Whether an annotation says anything of shapes; a string may."""
    if isinstance(annotation, str):
        return True
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(map(_has_shapes, typing.get_args(annotation)))


def _has_shapes_in(function: Any) -> bool:
    return any(map(_has_shapes, function.__annotations__.values()))
