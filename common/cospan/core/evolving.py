"""States of machines: frozen dataclasses of many fields, copied with a few of them changed at every event."""

from typing import Any, TypeVar


class Evolving:
    """A frozen dataclass without slots that is cheap to copy with changes."""

    def evolve(self: "_E", **changes: Any) -> "_E":
        """Equals `dataclasses.replace` at a tenth of its cost, but checks no names; every gradient calls it."""
        after = object.__new__(type(self))
        after.__dict__.update(self.__dict__, **changes)
        return after


_E = TypeVar("_E", bound=Evolving)
