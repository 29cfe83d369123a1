"""An experiment: its plan, its claims and its picture."""

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
from cospan.experiments.methods.catalogue import ComparedMethod
from cospan.experiments.methods.compared_methods import LSTD_RIDGES
from cospan.experiments.runner import Point, RunnableTask, Task
from cospan.wire.errors import InvalidValueError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FOLDER = files("cospan.experiments") / "specs"


class MethodEntry(BaseModel):
    """One `[[methods]]` of a spec file; see `cospan.experiments.methods.catalogue.ComparedMethod`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: str
    preset: str = "practical"
    method: dict[str, Any] = {}
    steps: tuple[float, ...] = INDEPENDENT_STEPS
    ridges: tuple[float, ...] = LSTD_RIDGES


class Plan(BaseModel):
    """A spec file: everything but the code that an experiment's numbers depend on.

    Attributes:
        title: of the page and the picture.
        workload: its name; for some experiments the name of a family of workloads.
        agents: n.
        rounds: of L steps each.
        steps_per_round: L; None for the workload's.
        rank: r; None for the workload's.
        seeds: of the runs.
        settings: values of what is varied.
        methods: compared methods; empty if the experiment makes its own.
        options: further constants of the experiment.
        tiny: values for a run of some seconds that shows only the sign of the effect.
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
    methods: list[MethodEntry] = []
    options: dict[str, Any] = {}
    tiny: dict[str, Any] = {}

    def made_tiny(self) -> "Plan":
        """With the values of `tiny`."""
        changed = {**self.tiny, "options": {**self.options, **self.tiny.get("options", {})}}
        return Plan.model_validate({**self.model_dump(), **changed})

    @property
    def fingerprint(self) -> str:
        """First 12 hex digits of the SHA-256 of the plan without `tiny`."""
        return hashlib.sha256(self.model_dump_json(exclude={"tiny"}).encode()).hexdigest()[:12]

    def compared_methods(self) -> tuple[ComparedMethod, ...]:
        """The methods of the file."""
        return tuple(
            ComparedMethod(each.name, each.kind, each.preset, each.method, each.steps, each.ridges)
            for each in self.methods
        )

    def task(self, seed: int, **changes: Any) -> Task:
        """One run with the plan's sizes."""
        values: dict[str, Any] = {
            "workload": self.workload,
            "methods": self.compared_methods(),
            "agents": self.agents,
            "rounds": self.rounds,
            "rank": self.rank,
            "steps_per_round": self.steps_per_round,
        }
        return Task(seed=seed, **(values | changes))


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding of an experiment.

    Attributes:
        name: short, for machines.
        text: a sentence that contains the number.
        value: the number and its interval.
        holds: whether the claim holds; None without a claim.
        sign: whether the effect has the claimed sign, which runs of any size must show; None without a claim.
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
class ExperimentOutcome:
    """Findings and tables of an experiment."""

    findings: tuple[Finding, ...]
    tables: tuple[Table, ...] = field(default=())


class Experiment(Protocol):
    """A module of `cospan.experiments.kinds`."""

    def tasks(self, plan: Plan) -> Sequence[RunnableTask]:
        """The runs, in the order of their results."""

    def outcome(self, plan: Plan, points: Sequence[Point]) -> ExperimentOutcome:
        """Judges the points of all runs."""

    def draw(self, figure: "Figure", plan: Plan, points: Sequence[Point]) -> None:
        """Draws the points of all runs into a figure."""


MODULES: Mapping[str, str] = MappingProxyType(
    {
        "linear-speedup": "linear_speedup",
        "misaligned": "sharing.groups",
        "single-vs-two-timescale": "time_scales",
        "steps-per-round": "sweep",
        "rank": "sweep",
        "ablation": "sweep",
        "ablation-practical": "sharing.parts",
        "adversaries": "sweep",
        "adversaries-queues": "sweep",
        "heterogeneity": "sweep",
        "acrobot-prediction": "prediction",
        "acrobot-two-timescale": "time_scales",
        "cartpole-control": "control",
        "acrobot-control": "control",
        "synthetic": "sharing.fleet",
        "queues": "sharing.fleet",
        "microgrids": "sharing.fleet",
        "dimensions": "sharing.dimensions",
        "new-site": "sharing.newcomers",
        "when-sharing-pays": "sharing.sharing_map",
        "intervals": "intervals",
        "privacy": "privacy",
        "better-decisions": "better_decisions",
    }
)
"""The module of each experiment."""
DEEP = frozenset({"cartpole-control", "acrobot-control"})
"""Those that need the extra `deep`."""


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
