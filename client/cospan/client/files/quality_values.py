"""What tells how good a value function is, by the names of a result file: of an agent, or of a group of n."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cospan.client.environment.observation_parts import MOST_PARTS
from cospan.client.files.agent_result import AgentResult
from cospan.core.linalg.leading_axes import per_agent
from cospan.core.quality.feature_tests import PERIODS, is_significant
from cospan.core.quality.fleet_errors import SiteErrors
from cospan.core.quality.held_out import MOST_BLOCKS, NAMES, Answers, HeldOut, HeldOutErrors
from cospan.core.quality.record import NOTHING_RECORDED, QualityRecord
from cospan.core.specification import RunSpecification
from cospan.wire.errors import RunFileError

COLUMNS = (*(f"held_out_{name}" for name in NAMES), "held_out_steps", "feature_tests")
"""Values that a file has one of for each agent."""
SHARED = ("held_out_within", "observation_parts")
"""Values that all agents of a group have in common."""
_KEPT = ("joint", "lstd_alone", "td_alone", "gain", "moments", "errors", "rounds")


def quality_values(errors: HeldOutErrors, record: QualityRecord, names: Sequence[str]) -> dict[str, Any]:
    """The arrays of a record, and the errors that it gives.

    Args:
        errors: on held-out data.
        record: of the agent or the group.
        names: of the numbers of an observation.
    """
    agents = np.shape(errors.joint)
    counts = np.array([errors.learnt_steps, errors.held_out_steps, errors.blocks], dtype=np.float64)
    values = {
        **{f"held_out_{name}": getattr(errors, name) for name in NAMES},
        "held_out_steps": np.broadcast_to(counts, (*agents, 3)).copy(),
        "held_out_within": bool(record.exogenous),
        "observation_parts": np.array(names, dtype=np.str_),
    }
    if record.tests is not None:
        values["feature_tests"] = record.tests
    return {**values, **_record_values(record)}


def unrecorded_values(agents: int, values: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """What a group's file has of agents of which no record is kept, beside others with these values."""
    found = quality_values(HeldOutErrors.unknown((agents,)), NOTHING_RECORDED, names)
    for name, value in values.items():
        if name not in found:  # of an equal shape, so that all agents have a row
            blank = np.full((), np.nan if name == "feature_tests" else 0.0)
            found[name] = np.broadcast_to(blank, (agents, *np.shape(value)[1:]))
    return found


def _record_values(record: QualityRecord) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for place, held in enumerate(record.kept):
        answers = held.answers
        parts = (
            answers.joint,
            answers.lstd_alone,
            answers.td_alone,
            answers.gain,
            held.moments,
            held.errors,
            np.array([answers.steps, answers.rounds, held.rounds, held.open_rounds, held.steps]),
        )
        values |= {f"quality_{place}_{name}": value for name, value in zip(_KEPT, parts, strict=True)}
    if record.second_moment is not None:
        values["quality_second_moment"] = record.second_moment
    for name in ("parts", "exogenous"):
        if getattr(record, name):
            values[f"quality_{name}"] = np.stack(getattr(record, name), axis=-3)
    return values


def loaded_quality(
    result: AgentResult, specification: RunSpecification, agents: tuple[int, ...] = ()
) -> QualityRecord:
    """The record in a file; an empty one where it has none.

    Args:
        result: the file.
        specification: of the run.
        agents: () in an agent's file, (n,) in a group's.

    Raises:
        RunFileError: a value is missing, or is something else.
    """
    d, values = specification.feature_dim, result.values
    names = [f"quality_{place}" for place in range(2) if f"quality_{place}_rounds" in values]
    kept = [_loaded_held_out(result, name, d, agents) for name in names]
    squares = None
    if "quality_second_moment" in values:
        squares = result.vector("quality_second_moment", *agents, d, d)
    stacks = {}
    for name in ("parts", "exogenous"):
        stack = values.get(f"quality_{name}")
        if stack is not None:
            if stack.ndim != 3 + len(agents) or stack.shape[-1] > 2 * MOST_PARTS or stack.dtype != np.float64:
                raise RunFileError(f"'quality_{name}' in the result of an agent are no rounds; the file is damaged")
            stacks[name] = tuple(stack[..., place, :, :] for place in range(stack.shape[-3]))
    tests = values.get("feature_tests")
    return QualityRecord(tuple(kept), squares, stacks.get("parts", ()), stacks.get("exogenous", ()), tests)


def _loaded_held_out(result: AgentResult, name: str, d: int, agents: tuple[int, ...]) -> HeldOut:
    counts = result.numbers(f"{name}_rounds", 1)
    errors = result.numbers(f"{name}_errors", 1 + len(agents))
    tried = result.numbers(f"{name}_td_alone", 2 + len(agents)).shape[-2]
    if counts.shape != (5,) or counts.min() < 0 or counts[2] < 1 or not 1 <= errors.shape[-1] <= MOST_BLOCKS + 1:
        raise RunFileError(f"'{name}_rounds' in the result of an agent are no rounds; the file is damaged")
    gain = result.vector(f"{name}_gain", *agents)
    answers = Answers(
        joint=result.vector(f"{name}_joint", *agents, d),
        lstd_alone=result.vector(f"{name}_lstd_alone", *agents, d),
        td_alone=np.asarray(result.numbers(f"{name}_td_alone", 2 + len(agents)), dtype=np.float64).reshape(
            *agents, tried, d
        ),
        gain=per_agent(gain),
        steps=int(counts[0]),
        rounds=int(counts[1]),
    )
    moments = result.numbers(f"{name}_moments", 2 + len(agents))
    if moments.shape != (*errors.shape, d):
        raise RunFileError(f"'{name}_moments' in the result of an agent has another shape; the file is damaged")
    return HeldOut(answers, moments, errors, int(counts[2]), int(counts[3]), int(counts[4]))


def site_errors(result: AgentResult) -> SiteErrors | None:
    """The errors of an agent on held-out data; None where a file lacks them, or they are unknown."""
    if "held_out_joint" not in result.values:
        return None
    found = {name: result.number(f"held_out_{name}") for name in NAMES}
    blocks = int(result.numbers("held_out_steps", 1)[-1])
    alone = found.pop("td_alone")
    if not np.isfinite(list(found.values())).all():
        return None
    return SiteErrors(**found, blocks=blocks, td_alone=alone if np.isfinite(alone) else None)


def held_out_steps(result: AgentResult) -> tuple[int, int]:
    """Environment steps that the answers were learnt from, and measured with; (0, 0) where a file lacks them."""
    if "held_out_steps" not in result.values:
        return 0, 0
    learnt, held_out, *_ = result.numbers("held_out_steps", 1).tolist()
    return int(learnt), int(held_out)


def is_tested(result: AgentResult) -> bool:
    """Whether its TD errors were tested for what the features lack; of a large group not all agents' are."""
    return "feature_tests" in result.values and bool(np.isfinite(result.numbers("feature_tests", 2)).any())


def feature_gaps(result: AgentResult) -> dict[str, float]:
    """What the TD errors of an agent depend on beyond its features, with the share of their variance it explains.

    The names are those of the parts of an observation, and `time modulo 24 steps`.
    """
    if not is_tested(result):
        return {}
    tests = result.numbers("feature_tests", 2)
    names = [*map(str, result.array("observation_parts")), *(f"time modulo {period} steps" for period in PERIODS)]
    if tests.shape != (2, len(names)):
        return {}
    beyond = is_significant(tests[0])
    return {name: float(tests[1, place]) for place, name in enumerate(names) if beyond[place]}
