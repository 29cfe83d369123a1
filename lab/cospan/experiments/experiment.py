"""An experiment: what is played, what is claimed of it, and how it is drawn."""

import hashlib
import importlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from cospan.core.learning.baselines import INDEPENDENT_STEPS
from cospan.experiments.estimates import Estimate
from cospan.experiments.methods.catalogue import Contender
from cospan.experiments.runner import Playable, Played, Task
from cospan.wire.errors import InvalidValueError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FOLDER = files("cospan.experiments") / "specs"


class ContenderEntry(BaseModel):
    """One `[[contenders]]` of a spec file; see `cospan.experiments.methods.catalogue.Contender`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: str
    preset: str = "practical"
    method: dict[str, Any] = {}
    steps: tuple[float, ...] = INDEPENDENT_STEPS


class Plan(BaseModel):
    """A spec file: everything that an experiment's numbers depend on, beside the code.

    Attributes:
        title: of the page and the picture.
        workload: that is played; of some experiments the name of a family.
        agents: n.
        rounds: of L steps each.
        steps_per_round: L; None for the workload's.
        rank: r; None for the workload's.
        seeds: of the runs.
        settings: what is varied.
        contenders: what plays; empty where the experiment makes its own.
        options: whatever else the experiment wants to be told.
        tiny: values for a run of some seconds that only shows the sign of the effect.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    workload: str
    agents: int
    rounds: int
    seeds: list[int]
    steps_per_round: int | None = None
    rank: int | None = None
    settings: list[Any] = []
    contenders: list[ContenderEntry] = []
    options: dict[str, Any] = {}
    tiny: dict[str, Any] = {}

    def made_tiny(self) -> "Plan":
        """With the values of `tiny`."""
        changed = {**self.tiny, "options": {**self.options, **self.tiny.get("options", {})}}
        return Plan.model_validate({**self.model_dump(), **changed})

    @property
    def fingerprint(self) -> str:
        """Twelve digits that are equal exactly for equal plans, whatever their tiny runs are."""
        return hashlib.sha256(self.model_dump_json(exclude={"tiny"}).encode()).hexdigest()[:12]

    def played_by(self) -> tuple[Contender, ...]:
        """The contenders of the file."""
        return tuple(
            Contender(each.name, each.kind, each.preset, each.method, each.steps) for each in self.contenders
        )

    def task(self, seed: int, **changes: Any) -> Task:
        """One run with the plan's sizes."""
        values: dict[str, Any] = {
            "workload": self.workload,
            "contenders": self.played_by(),
            "agents": self.agents,
            "rounds": self.rounds,
            "rank": self.rank,
            "steps_per_round": self.steps_per_round,
        }
        return Task(seed=seed, **(values | changes))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that an experiment found.

    Attributes:
        name: short, for machines.
        text: a sentence with the number in it.
        value: the number, with its interval.
        holds: whether what is claimed holds; None where nothing is.
        sign: whether the effect has the sign that is claimed, which runs of any size must show; None where there
            is no claim.
    """

    name: str
    text: str
    value: Estimate
    holds: bool | None = None
    sign: bool | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the page."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an experiment gives."""

    findings: tuple[Finding, ...]
    tables: tuple[Table, ...] = field(default=())


class Experiment(Protocol):
    """A module of `cospan.experiments.kinds`."""

    def tasks(self, plan: Plan) -> Sequence[Playable]:
        """What is to be played."""
        ...

    def outcome(self, plan: Plan, played: Sequence[Played]) -> Outcome:
        """What came of it."""
        ...

    def draw(self, figure: "Figure", plan: Plan, played: Sequence[Played]) -> None:
        """Its picture."""
        ...


MODULES: Mapping[str, str] = MappingProxyType(
    {
        "linear-speedup": "linear_speedup",
        "misaligned": "sweep",
        "single-vs-two-timescale": "time_scales",
        "steps-per-round": "sweep",
        "rank": "sweep",
        "ablation": "sweep",
        "adversaries": "sweep",
        "adversaries-queues": "sweep",
        "heterogeneity": "sweep",
        "acrobot-prediction": "prediction",
        "acrobot-two-timescale": "time_scales",
        "queues": "fleet",
        "microgrids": "fleet",
    }
)
"""The known experiments, and the module of each."""


def load(name: str) -> tuple[Plan, Experiment]:
    """The plan and the module of an experiment.

    Raises:
        InvalidValueError: there is no such experiment; the text lists the known ones.
    """
    if name not in MODULES:
        raise InvalidValueError(f"there is no experiment {name!r}; take one of {', '.join(MODULES)}")
    module: Any = importlib.import_module(f"cospan.experiments.kinds.{MODULES[name]}")
    text = (_FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    try:
        return Plan.model_validate(tomllib.loads(text)), module
    except (ValidationError, tomllib.TOMLDecodeError) as failure:
        raise InvalidValueError(f"the spec file of experiment {name!r} is damaged: {failure}") from failure
