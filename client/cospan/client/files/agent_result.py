"""The arrays of a result file, read by name and checked."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.wire.errors import RunFileError


@dataclass(frozen=True, eq=False, slots=True)
class AgentResult:
    """One agent's file.

    Attributes:
        values: the arrays of the file, by name; see docs/run-folder.md.
    """

    values: dict[str, np.ndarray]

    def array(self, name: str) -> np.ndarray:
        """A value as it is. Raises RunFileError where the file lacks it."""
        if name not in self.values:
            raise RunFileError(f"the result of an agent lacks {name!r}; the file is damaged")
        return self.values[name]

    def text(self, name: str) -> str:
        """A value that is text. Raises RunFileError where the file lacks it."""
        return str(self.array(name))

    def number(self, name: str) -> float:
        """A value that is a number. Raises RunFileError where the file lacks it, or has something else."""
        return float(self.numbers(name, 0))

    def whole(self, name: str, least: int = 0) -> int:
        """A value that is a whole number. Raises RunFileError where it is missing, smaller, or something else."""
        value = self.number(name)
        if not (value.is_integer() and value >= least):
            raise RunFileError(
                f"{name!r} in the result of an agent is {value!r} and must be a whole number from {least} on; "
                "the file is damaged"
            )
        return int(value)

    def flag(self, name: str) -> bool:
        """A value that is true or false. Raises RunFileError where it is missing, or is something else."""
        value = self.array(name)
        if value.shape != () or value.dtype != np.bool_:
            raise RunFileError(f"{name!r} in the result of an agent is not true or false; the file is damaged")
        return bool(value)

    def numbers(self, name: str, dimensions: int) -> np.ndarray:
        """A value that is an array of numbers, which may be nan. Raises RunFileError where it is something else."""
        value = self.array(name)
        if value.ndim != dimensions or value.dtype.kind not in "iuf":
            shape = ("number", "row of numbers", "table of numbers", "stack of tables of numbers")[dimensions]
            raise RunFileError(f"{name!r} in the result of an agent is no {shape}; the file is damaged")
        return value

    def vector(self, name: str, *shape: int) -> np.ndarray:
        """A value that is an array of this shape. Raises RunFileError where it is missing, or is something else."""
        value = self.array(name)
        if value.shape != shape or value.dtype != np.float64 or not np.isfinite(value).all():
            raise RunFileError(
                f"{name!r} in the result of an agent is no finite array of shape {shape}; the file is damaged"
            )
        return value

    def rounded(self, name: str, *shape: int) -> np.ndarray:
        """The same of float32, for what is large and need not be exact."""
        value = self.array(name)
        if value.shape != shape or value.dtype != np.float32 or not np.isfinite(value).all():
            raise RunFileError(
                f"{name!r} in the result of an agent is no finite float32 array of shape {shape}; "
                "the file is damaged"
            )
        return value

    @property
    def last_round(self) -> int | None:
        """The last round learnt; None before the first. Raises RunFileError where the file lacks it."""
        number = self.whole("last_round", least=-1)
        return None if number < 0 else number

    @property
    def curve_every(self) -> int:
        """The step between the rounds of its learning curve, 1 or more; see `LearningCurve`.

        Raises:
            RunFileError: it is missing, or is something else.
        """
        return self.whole("curve_every", least=1)

    @property
    def shared_weight(self) -> float | None:
        """How much of its answer is the fleet's, 0 to 1; None where it has learnt no posterior."""
        return self.number("shared_weight") if "shared_weight" in self.values else None

    @property
    def td_alone_errors(self) -> Float[np.ndarray, " m"]:
        """The relative value errors of TD alone, one for each step size."""
        errors = self.array("curve_td_alone_error")
        return np.asarray(errors[-1]) if len(errors) else np.empty(0)
