"""Checks the types and the shapes of what functions of some packages take and return, while tests run them.

An import hook of jaxtyping decorates each function, and `checked` says with what. Three things keep it quick:

* A function gets its checker at its first call: a process of tests imports every module and calls few functions.
* A function with shapes in its signature is checked once for each combination of what a check can depend on: the
  types, dtypes and shapes of its arguments and of its result. To look this up takes a tenth of a check.
* After the first hundreds of calls of such a function in a test, one in several is looked up: whole runs make
  hundreds of thousands of calls, as alike as their rounds.
"""

import collections.abc
import dataclasses
import functools
import inspect
import operator
import sys
import types
import typing
from collections.abc import Callable, Collection, Hashable
from typing import Any

import beartype
import beartype.door
import beartype.roar
import jaxtyping
import numpy as np

_CONFIGURATION = beartype.BeartypeConf(is_pep484_tower=True)
"""beartype, with the rule of PEP 484 (and of mypy) that an int is good where a float is asked for."""
_NAME = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
"""The same as the import hook takes it; compiled modules are kept under this text."""
_UNCHECKED = {"cospan.client.workloads.models.microgrids"}
"""beartype cannot read a subscripted generic NamedTuple (`Arithmetic[float]`) and refuses the module."""
_CALLS_AT_FIRST = 256
"""Of a function with shapes: so many of its calls are looked up in each test; see `begin_test`."""
_ONE_CALL_IN = 17
"""Of those after. A prime: the agents of a fleet come in turn."""
_MOST_SHAPES = 4096
_MOST_ITEMS = 32
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_MORE, _KEYWORDS = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
_KIND_OF_ARRAY = operator.attrgetter("__class__", "dtype", "shape")
"""The kind of what should be an array. It raises AttributeError for most other values."""
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


def begin_test() -> None:
    """Looks up the first calls of each function once more."""
    _test[0] += 1


_test = [0]
"""Its number."""


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
    is_known = not any(isinstance(each, str) for each in thing.__annotations__.values())
    return _checked_per_shape(thing) if is_known and _has_shapes_in(thing) else _checked_when_called(thing)


def _beartyped(function: Any) -> Any:
    return beartype.beartype(conf=_CONFIGURATION)(function)


def _is_resumed(function: Any) -> bool:
    """Whether a call returns before the body has run: its result is checked by what runs the body."""
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    return any(is_kind(function) for is_kind in kinds)


def _checked_when_called(function: Any) -> Any:
    """The function with a checker that is made at the first call.

    From then on it runs the checker's code: to call the checker would take as long as most checks.
    """
    scope: dict[str, Any] = {"__builtins__": __builtins__}
    call = functools.wraps(function)(types.FunctionType(_calls_checker.__code__, scope, function.__name__))

    def first_call(*args: Any, **kwargs: Any) -> Any:
        hints = _hints_of(function)
        if hints is not None:
            function.__annotations__ = hints  # beartype looks up a name in a string at each call
        is_plain = hints is not None and not any(map(_has_shapes, hints.values()))
        checker = scope["checker"] = _beartyped(function) if is_plain else _checked_per_shape(function)
        if is_plain and checker is not function and not checker.__code__.co_freevars:
            call.__defaults__, call.__kwdefaults__ = checker.__defaults__, checker.__kwdefaults__
            call.__code__ = checker.__code__
        return checker(*args, **kwargs)

    scope["checker"] = first_call
    return call


def _calls_checker(*args: Any, **kwargs: Any) -> Any:
    return checker(*args, **kwargs)  # type: ignore[name-defined]


def _checked_per_shape(function: Any) -> Any:
    """The function, checked wherever its arguments and its result together are of kinds that it has not seen."""
    signature: _Signature | None = None
    seen: dict[Hashable, set[Hashable]] = {}
    test = calls = -1

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal signature, test, calls
        calls += 1
        if test != _test[0]:
            test, calls = _test[0], 0
        elif calls >= _CALLS_AT_FIRST and calls % _ONE_CALL_IN:
            return function(*args, **kwargs)
        if signature is None:
            signature = _Signature(function)
        try:
            if kwargs or len(args) != signature.count:
                given = signature.kinds(args, kwargs)
            else:
                given = tuple(map(operator.call, signature.positional, args))
        except (_UnknownKindError, AttributeError):
            return signature.call(args, kwargs)
        results = seen.get(given)
        result = signature.call(args, kwargs) if results is None else function(*args, **kwargs)
        try:
            returned = signature.kind_of_result(result)
        except (_UnknownKindError, AttributeError):
            if results is not None:
                signature.check(args, kwargs, result)
            return result
        if results is None or returned not in results:
            if results is not None:
                signature.check(args, kwargs, result)
            if len(seen) < _MOST_SHAPES:
                seen.setdefault(given, set()).add(returned)
        return result

    return call


class _Signature:
    """What the arguments and the result of a function have to be."""

    def __init__(self, function: Any) -> None:
        self._function, self._signature = function, inspect.signature(function)
        hints = _hints_of(function)
        self._hints = hints or {}
        self._checker = _jaxtyped(function, typechecker=_beartyped) if hints is None else None
        """Where an annotation names what is imported for type checkers alone."""
        kinds = {name: _kind_by(self._hints.get(name)) for name in self._signature.parameters}
        of_kind: dict[Any, list[str]] = collections.defaultdict(list)
        for name, parameter in self._signature.parameters.items():
            of_kind[parameter.kind].append(name)
        self._more, self._keywords = of_kind[_MORE], of_kind[_KEYWORDS]
        self.positional = [kinds[name] for kind in _POSITIONAL for name in of_kind[kind]]
        """What takes the kind of each positional argument."""
        self.count = len(self.positional) if self._checker is None else -1
        """With as many arguments, all of them positional, `positional` says all that `kinds` does."""
        self._rest = kinds[self._more[0]] if self._more else type
        self._named = collections.defaultdict(lambda: kinds[self._keywords[0]] if self._keywords else type, kinds)
        self.kind_of_result = _kind_by(self._hints.get("return"))

    def kinds(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """All of the arguments that a check can depend on; see `_kind`.

        Raises:
            _UnknownKindError, AttributeError: it cannot be said.
        """
        if self._checker is not None:
            raise _UnknownKindError
        kinds = self.positional
        if len(args) > len(kinds):
            kinds = kinds + [self._rest] * (len(args) - len(kinds))
        given = tuple(map(operator.call, kinds, args))
        return (given, *[(name, self._named[name](value)) for name, value in kwargs.items()]) if kwargs else given

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of a call, with checks before and after."""
        if self._checker is not None:
            return self._checker(*args, **kwargs)
        values = self._values(args, kwargs)
        with _jaxtyped("context"):
            self._check(values)
            result = self._function(*args, **kwargs)
            self._check({"return": [result]})
        return result

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Checks arguments and result of a call that has returned."""
        with _jaxtyped("context"):
            self._check(self._values(args, kwargs) | {"return": [result]})

    def _values(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, list[Any]]:
        values = {name: [value] for name, value in self._signature.bind(*args, **kwargs).arguments.items()}
        for name in self._more:
            values[name] = list(*values.get(name, ()))
        for name in self._keywords:
            values[name] = list(values[name][0].values()) if name in values else []
        return values

    def _check(self, values: dict[str, list[Any]]) -> None:
        for name, hint in self._hints.items():
            for value in values.get(name, ()):
                try:
                    beartype.door.die_if_unbearable(value, hint, conf=_CONFIGURATION)
                except beartype.roar.BeartypeDoorHintViolation as violation:
                    where = f"{self._function.__qualname__}, {name}"
                    raise jaxtyping.TypeCheckError(f"typechecking {where}: {violation}") from violation


def _hints_of(function: Any) -> dict[str, Any] | None:
    """Its annotations; None where one of them names what is imported for type checkers alone."""
    try:
        return typing.get_type_hints(function)
    except NameError:
        return None


def _kind_by(annotation: Any) -> Callable[[Any], Hashable]:
    """What takes the kind of a value with this annotation: its type, where a check can depend on nothing else."""
    if _is_of_types(annotation):
        return type
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return _KIND_OF_ARRAY
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is not tuple or Ellipsis in parts:
        return functools.partial(_kind, sampled=True) if _is_sampled(annotation) else _kind
    by = [_kind_by(part) for part in parts]

    def of_tuple(value: Any) -> Hashable:
        if type(value) is not tuple or len(value) != len(by):
            raise _UnknownKindError
        return tuple(map(operator.call, by, value))

    return of_tuple


def _is_of_types(annotation: Any) -> bool:
    """Whether an annotation asks for nothing but a type, or for one of some types."""
    if annotation is None or annotation is Any:
        return True
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return all(map(_is_of_types, typing.get_args(annotation)))
    is_array = inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray)
    return inspect.isclass(annotation) and not is_array and not typing.get_args(annotation)


def _kind(value: Any, sampled: bool = False) -> Hashable:
    """All of a value that a check can depend on.

    Args:
        value: an argument or a result.
        sampled: whether the checker looks at one random item of a container. Then all items must be of one kind.

    Raises:
        _UnknownKindError: it is a container of several kinds that is sampled, a long one, or one of another type.
    """
    kind = type(value)
    if kind is np.ndarray:
        return value.dtype, value.shape
    if kind is tuple or kind is list or kind is frozenset:
        return kind, _kinds(value, sampled)
    if kind is dict:
        return kind, _kinds(value, sampled), _kinds(value.values(), sampled)
    if isinstance(value, type):
        return value
    if _is_told_by_its_type(kind):
        return kind
    raise _UnknownKindError


def _kinds(values: Collection[Any], sampled: bool) -> tuple[Hashable, ...]:
    if len(values) > _MOST_ITEMS:
        raise _UnknownKindError
    items = [_kind(value, sampled) for value in values]
    if not sampled:
        return tuple(items)
    if len(different := set(items)) > 1:
        raise _UnknownKindError
    return tuple(different)


@functools.cache
def _is_told_by_its_type(kind: type) -> bool:
    """Whether a check of a value of this type can look at nothing but the type."""
    if issubclass(kind, str | bytes | np.generic) or hasattr(kind, "_fields"):
        return True
    return not issubclass(kind, type | collections.abc.Iterable)


def _is_sampled(annotation: Any) -> bool:
    """Whether the checker looks at one random item of a container that has this annotation, or of a part of it."""
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
