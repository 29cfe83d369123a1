"""What is asked of differential privacy in a run, as a text: `epsilon=8,delta=1e-5`."""

from dataclasses import dataclass, fields

OFF = "off"
"""The text that asks for none, against a setting of another layer."""
MAX_EPSILON = 100.0
"""The largest ε that a run may promise: far above it the promise is empty."""
MAX_VECTORS = 10**6
"""The most vectors that a budget is made for."""


@dataclass(frozen=True, slots=True)
class PrivacyRequest:
    """The promise, and what may be said of how it is kept.

    Attributes:
        epsilon: ε.
        delta: δ.
        vectors: how many vectors an agent may send; 0 for as many as the run has rounds.
        gradient_bound: of the clip; see `cospan.core.privacy.clipping.Bounds`.
        curvature_bound: likewise, of the pooled curvature.
        influence_bound: likewise, of the influence ω.
    """

    epsilon: float
    delta: float
    vectors: int = 0
    gradient_bound: float = 10.0
    curvature_bound: float = 50.0
    influence_bound: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "PrivacyRequest | None":
        """The request that a text is; None for `off`.

        Raises:
            ValueError: it is none; the message says what is wrong with it and what is allowed.
        """
        if text.strip().lower() == OFF:
            return None
        names = {field.name.replace("_", "-"): field.name for field in fields(cls)}
        found: dict[str, float] = {}
        for part in text.split(","):
            key, is_pair, value = (each.strip() for each in part.partition("="))
            if not is_pair or key.replace("_", "-") not in names:
                raise ValueError(f"{part.strip()[:40]!r} in it is none of {', '.join(names)} with = and a number")
            name = names[key.replace("_", "-")]
            if name in found:
                raise ValueError(f"it says {key} twice; say it once")
            found[name] = _number(key, value)
        lacking = [key for key in ("epsilon", "delta") if key not in found]
        if lacking:
            raise ValueError(f"it lacks {' and '.join(lacking)}; write it as epsilon=8,delta=1e-5")
        vectors = _whole(found.pop("vectors", 0.0))
        request = cls(**found, vectors=vectors)
        if problem := request.problem():
            raise ValueError(problem)
        return request

    def problem(self) -> str:
        """What is out of range; empty where nothing is."""
        if not 0.0 < self.epsilon <= MAX_EPSILON:
            return f"epsilon is {self.epsilon:g}; it must be above 0 and at most {MAX_EPSILON:g}"
        if not 0.0 < self.delta < 1.0:
            return f"delta is {self.delta:g}; it must be above 0 and below 1, and far below 1 / agents"
        if not 0 <= self.vectors <= MAX_VECTORS:
            return f"vectors is {self.vectors}; it must be 1 to {MAX_VECTORS}"
        for name in ("gradient_bound", "curvature_bound", "influence_bound"):
            if not 0.0 < getattr(self, name) < float("inf"):
                return f"{name.replace('_', '-')} is {getattr(self, name):g}; it must be above 0 and finite"
        return ""


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{key} is {text[:40]!r}; it must be a number") from None


def _whole(number: float) -> int:
    if not number.is_integer():
        raise ValueError(f"vectors is {number:g}; it must be a whole number")
    return int(number)
