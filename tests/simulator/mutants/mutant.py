"""One fault that is planted in a module."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from simulator.mutants.generated import changed


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted fault.

    Attributes:
        module: its full name.
        old: text that is in its source once.
        new: what stands there instead.
        what: what is wrong then, in words.
        why_not: why simulated runs cannot find it; empty where they must.
        key: of a generated one, in place of `old` and `new`.
        secure_sums: whether only seeds with secure sums can find it.
    """

    module: str
    old: str
    new: str
    what: str
    why_not: str = ""
    key: str = ""
    secure_sums: bool = False

    def applied(self, source: str) -> str:
        """The source of the module with the mutant.

        Raises:
            ValueError: what it replaces is not there exactly once; the list has to follow the code.
        """
        if self.key:
            return changed(source, self.key)
        if source.count(self.old) != 1:
            raise ValueError(f"{self.module} has {source.count(self.old)} times {self.old!r}, and not once")
        return source.replace(self.old, self.new)

    @property
    def path(self) -> Path:
        """The file of the module. No package above it is imported: it would run without the mutant."""
        return path_of(self.module)


def path_of(module: str) -> Path:
    """The file of a module, found without importing it."""
    package, *inner = module.split(".")
    roots = importlib.util.find_spec(package)
    assert roots is not None
    assert roots.submodule_search_locations is not None
    files = [Path(root, *inner).with_suffix(".py") for root in roots.submodule_search_locations]
    return next(file for file in files if file.exists())
