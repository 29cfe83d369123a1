"""Ranges, digests and names of a run."""

import dataclasses
import hashlib
import json
import math
import struct
from typing import Any

import numpy as np
import pytest

from cospan.core.linalg.subspace import orthonormality_error
from cospan.core.method import MAX_HISTORY_DIM, MAX_POSTERIOR_DIM, Aggregation, HeadUpdate, Method, practical
from cospan.core.privacy.promise import OF_PRIVACY
from cospan.core.run_fields import MAX_AGENTS, MAX_FEATURE_DIM, MAX_STALENESS, Participation
from cospan.core.specification import MAX_NAME, RunSpecification, agent_id_problem, basis_digest

METHOD = Method(
    steps_per_round=5,
    head_update=HeadUpdate.END_OF_ROUND,
    head_step=0.1,
    gain_step=0.1,
    head_radius=math.inf,
    basis_step=0.5,
)
VALID = RunSpecification(
    workload="synthetic",
    feature_dim=6,
    rank=2,
    agents=3,
    rounds=10,
    seed=1,
    method=METHOD,
    feature_fingerprint="tabular-0123",
    session_timeout_seconds=5.0,
    round_timeout_seconds=60.0,
    participation=Participation.QUORUM,
    quorum=2.0,
    deadline_seconds=1.5,
    max_staleness=1,
    min_agents=2,
)
NOT_IN_RANGE: dict[str, list[Any]] = {
    "feature_dim": [MAX_FEATURE_DIM + 1],
    "rank": [0, -1, 7],
    "agents": [MAX_AGENTS + 1],
    "rounds": [-1, 2**63],
    "seed": [-1, 2**63],
    "session_timeout_seconds": [0.0, -1.0, math.inf, math.nan],
    "round_timeout_seconds": [0.0, -1.0, math.inf, math.nan],
    "quorum": [0.0, -1.0, 1.5, math.inf, math.nan],
    "deadline_seconds": [-1.0, math.inf, math.nan],
    "max_staleness": [-1, MAX_STALENESS + 1],
    "min_agents": [-1, 4],
}
ANOTHER: dict[str, Any] = {
    "workload": "queues",
    "feature_dim": 7,
    "rank": 3,
    "agents": 4,
    "rounds": 11,
    "seed": 2,
    "feature_fingerprint": "tabular-0124",
    "session_timeout_seconds": 5.5,
    "round_timeout_seconds": 61.0,
    "participation": Participation.ALL,
    "quorum": 0.5,
    "deadline_seconds": 0.0,
    "max_staleness": 0,
    "min_agents": 0,
}
IMPROVING = RunSpecification(
    workload="queues",
    feature_dim=6,
    rank=2,
    agents=3,
    rounds=70,
    seed=1,
    method=practical(5),
    improve=3,
    evaluation_rounds=12,
    trial_rounds=8,
    explore=0.1,
    confidence=0.95,
)
OTHER_IMPROVEMENT: dict[str, Any] = {
    "improve": 2,
    "evaluation_rounds": 11,
    "trial_rounds": 7,
    "explore": 0.2,
    "confidence": 0.9,
}
ANOTHER_METHOD: dict[str, Any] = {
    "steps_per_round": 6,
    "head_update": HeadUpdate.EVERY_STEP,
    "head_step": math.nextafter(0.1, 1.0),
    "gain_step": 0.2,
    "head_radius": 1e300,
    "basis_step": 0.0,
    "implicit_head_step": True,
    "preconditioned": True,
    "preconditioner_floor": 0.06,
    "decay_horizon": 1.0,
    "decay_power": 0.5,
    "trace_decay": 0.5,
    "forgetting": 2.0,
    "row_scaled": True,
    "reward_scaled": True,
    "explained_power": 2.0,
    "warm_up_rounds": 4,
    "aggregation": Aggregation.GEOMETRIC_MEDIAN,
    "trimmed_share": 0.125,
    "clip_norm": 1.0,
    "largest_turn": 12.5,
    "first_turn": 45.0,
    "refresh_growth": 1.5,
    "refresh_sample": 500,
}


# Ranges ---------------------------------------------------------------------------------------------------------


def test_a_good_specification_has_no_problems() -> None:
    assert VALID.problems() == []


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in NOT_IN_RANGE.items() for v in values])
def test_a_value_out_of_range_is_named(name: str, value: float) -> None:
    problems = dataclasses.replace(VALID, **{name: value}).problems()
    assert len(problems) == 1
    assert problems[0].startswith(f"{name} is {value!r}; it must be ")


@pytest.mark.parametrize("name", ["workload", "feature_fingerprint"])
def test_a_name_that_is_too_long_is_named_and_not_repeated(name: str) -> None:
    problems = dataclasses.replace(VALID, **{name: "x" * (MAX_NAME + 1)}).problems()
    assert problems == [f"{name} has {MAX_NAME + 1} characters; it must be at most {MAX_NAME}"]
    assert dataclasses.replace(VALID, **{name: "x" * MAX_NAME}).problems() == []


@pytest.mark.parametrize("agents", [0, -1])
def test_a_run_has_an_agent(agents: int) -> None:
    problems = dataclasses.replace(VALID, agents=agents, min_agents=0).problems()
    assert problems == [f"agents is {agents}; it must be 1 to {MAX_AGENTS}"]


@pytest.mark.parametrize("name", ["quorum", "deadline_seconds", "max_staleness"])
def test_what_belongs_to_a_quorum_is_refused_without_one(name: str) -> None:
    nothing: dict[str, Any] = {"quorum": 0.0, "deadline_seconds": 0.0, "max_staleness": 0}
    alone = dataclasses.replace(VALID, participation=Participation.ALL, **nothing)
    assert alone.problems() == []
    (problem,) = dataclasses.replace(alone, **{name: 1}).problems()
    assert problem == f"{name} is 1; it must be 0, or say participation quorum"


@pytest.mark.parametrize("quorum", [0.01, 0.999, 1.0, 3.0, float(MAX_AGENTS)])
def test_a_quorum_is_a_share_or_a_number(quorum: float) -> None:
    assert dataclasses.replace(VALID, quorum=quorum).problems() == []


def test_a_feature_dimension_of_zero_leaves_no_rank() -> None:
    problems = dataclasses.replace(VALID, feature_dim=0).problems()
    assert [text.split()[0] for text in problems] == ["feature_dim", "rank"]


def test_a_history_that_no_agent_could_keep_is_refused() -> None:
    full = dataclasses.replace(METHOD, head_update=HeadUpdate.FULL_HISTORY)
    large = dataclasses.replace(VALID, method=full, feature_dim=MAX_HISTORY_DIM)
    assert large.problems() == []
    (problem,) = dataclasses.replace(large, feature_dim=MAX_HISTORY_DIM + 1).problems()
    assert problem.startswith("feature_dim is 4097; with full-history head updates")
    assert dataclasses.replace(large, feature_dim=MAX_HISTORY_DIM + 1, method=METHOD).problems() == []


def test_a_posterior_that_takes_too_long_is_refused() -> None:
    large = dataclasses.replace(VALID, method=practical(5), feature_dim=MAX_POSTERIOR_DIM)
    assert large.problems() == []
    (problem,) = dataclasses.replace(large, feature_dim=MAX_POSTERIOR_DIM + 1).problems()
    assert problem.startswith("feature_dim is 2049; with posterior head updates")
    assert problem.endswith("the preset compact keeps r × r")


def test_a_warm_up_has_its_bounds() -> None:
    warming = dataclasses.replace(METHOD, warm_up_rounds=4)
    large = dataclasses.replace(VALID, method=warming, rounds=5, feature_dim=MAX_HISTORY_DIM)
    assert large.problems() == []
    assert dataclasses.replace(large, rounds=0).problems() == []
    (problem,) = dataclasses.replace(large, feature_dim=MAX_HISTORY_DIM + 1).problems()
    assert problem.startswith("feature_dim is 4097; with a warm-up")
    (problem,) = dataclasses.replace(large, rounds=4).problems()
    assert problem.startswith("warm_up_rounds is 4; it must be below the number of rounds 4")


def test_problems_of_the_method_are_problems_of_the_run() -> None:
    wrong = dataclasses.replace(METHOD, gain_step=2.0)
    assert dataclasses.replace(VALID, method=wrong).problems() == wrong.problems() != []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("feature_dim", MAX_FEATURE_DIM),
        ("feature_fingerprint", ""),
        ("rank", 1),
        ("rank", 6),
        ("agents", 2),
        ("agents", MAX_AGENTS),
        ("rounds", 0),
        ("rounds", 2**63 - 1),
        ("seed", 0),
        ("seed", 2**63 - 1),
    ],
)
def test_the_edges_are_allowed(name: str, value: object) -> None:
    assert dataclasses.replace(VALID, **{name: value}).problems() == []


# Improvement ----------------------------------------------------------------------------------------------------


def test_a_run_with_improvement_steps_has_no_problems() -> None:
    assert IMPROVING.problems() == []
    assert dataclasses.replace(IMPROVING, rounds=60).problems() == []
    assert dataclasses.replace(IMPROVING, rounds=0).problems() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"rounds": 59},
            "rounds is 59; it must be 60 or more (improve is 3, and each step has 12 rounds of evaluation and 8 of",
        ),
        ({"improve": 1001}, "improve is 1001; it must be 0 to 1000"),
        ({"evaluation_rounds": 0}, "evaluation_rounds is 0; it must be 1 to"),
        ({"trial_rounds": 0}, "trial_rounds is 0; it must be 1 to"),
        ({"explore": 0.0}, "explore is 0.0; it must be above 0, at most 1"),
        ({"confidence": 0.5}, "confidence is 0.5; it must be above 0.5 and below 1"),
        ({"improve": 0}, "evaluation_rounds is 12; it must be 0, or say how many steps of improvement"),
        ({"method": METHOD}, "policies are improved with the preset practical; this run has end-of-round"),
    ],
)
def test_improvement_out_of_its_range_is_named(changes: dict[str, Any], words: str) -> None:
    assert words in "; ".join(dataclasses.replace(IMPROVING, **changes).problems())


def test_a_negative_number_of_improvement_steps_is_the_only_problem() -> None:
    plain = dataclasses.replace(
        IMPROVING, improve=0, evaluation_rounds=0, trial_rounds=0, explore=0.0, confidence=0.0
    )
    assert plain.problems() == []
    (problem,) = dataclasses.replace(plain, improve=-1).problems()
    assert problem.startswith("improve is -1; it must be 0 to 1000")


def test_a_trial_pools_nothing_and_turns_nothing_and_each_evaluation_begins_as_a_run_does() -> None:
    method = dataclasses.replace(IMPROVING.method, largest_turn=3.0, first_turn=9.0)
    run = dataclasses.replace(IMPROVING, method=method)
    pooled = [method.sends_pooled_in(t) for t in range(12)]
    assert [run.sends_pooled_in(t) for t in range(60)] == (pooled + [False] * 8) * 3
    assert run.sends_pooled_in(60)
    assert run.largest_turn_between(12, 20) == 0.0
    for first in (0, 20, 40, 60):
        assert run.largest_turn_between(first, first + 2) == method.largest_turn_between(0, 2)
    assert run.largest_turn_between(11, 21) == pytest.approx(
        method.largest_turn_between(11, 12) + method.largest_turn_between(0, 1)
    )


# Digests --------------------------------------------------------------------------------------------------------


OF_SECURE_SUMS = {"secure_sums", "min_cohort"}


def variants() -> list[tuple[str, RunSpecification]]:
    changed = [(name, dataclasses.replace(VALID, **{name: value})) for name, value in ANOTHER.items()]
    return changed + [
        (f"method.{name}", dataclasses.replace(VALID, method=dataclasses.replace(METHOD, **{name: value})))
        for name, value in ANOTHER_METHOD.items()
    ]


def test_every_field_is_considered_here() -> None:
    assert {f.name for f in dataclasses.fields(RunSpecification)} == {
        *ANOTHER,
        *OTHER_IMPROVEMENT,
        *OF_SECURE_SUMS,
        *OF_PRIVACY,  # in tests/unit/core/privacy/test_promise.py
        "method",
    }
    assert {f.name for f in dataclasses.fields(Method)} == set(ANOTHER_METHOD)


@pytest.mark.parametrize(("name", "changed"), variants(), ids=[name for name, _ in variants()])
def test_the_digest_changes_with_every_field(name: str, changed: RunSpecification) -> None:
    assert changed.digest() != VALID.digest()


@pytest.mark.parametrize("name", list(OTHER_IMPROVEMENT))
def test_the_digest_changes_with_improvement(name: str) -> None:
    changed = dataclasses.replace(IMPROVING, **{name: OTHER_IMPROVEMENT[name]})
    assert changed.digest() != IMPROVING.digest()


def test_a_run_without_improvement_has_the_digest_that_it_always_had() -> None:
    assert VALID.digest() == "a0b567d023406e9c2f0509588d5404b48cc47b068a90382400b6bf803482c88a"


def test_digests_are_of_values_and_not_of_objects() -> None:
    copy = dataclasses.replace(VALID, method=dataclasses.replace(METHOD))
    assert copy == VALID
    assert copy.digest() == VALID.digest()
    assert len(VALID.digest()) == 64


def test_equal_specifications_have_equal_digests_however_their_numbers_are_written() -> None:
    """`head_step = 1` in a file is an int and over the wire it becomes 1.0. Nor does −0.0 differ from 0.0."""
    whole = dataclasses.replace(
        VALID,
        method=dataclasses.replace(METHOD, head_step=1, basis_step=0, decay_horizon=0),
        session_timeout_seconds=5,
    )
    point = dataclasses.replace(
        VALID, method=dataclasses.replace(METHOD, head_step=1.0, basis_step=-0.0, decay_horizon=0.0)
    )
    assert whole == point
    assert whole.digest() == point.digest()


def test_a_dictionary_holds_every_field_as_a_plain_value() -> None:
    values: dict[str, Any] = VALID.as_dict()
    assert set(values) == {field.name for field in dataclasses.fields(RunSpecification)}
    assert set(values["method"]) == set(ANOTHER_METHOD)
    assert values["participation"] == "quorum"
    assert values["method"]["head_update"] == "end-of-round"
    assert values["method"]["aggregation"] == "mean"
    assert values["method"]["head_radius"] == math.inf
    assert json.loads(json.dumps(values)) == values
    assert VALID.method.head_update is HeadUpdate.END_OF_ROUND


def test_basis_digest_is_over_the_little_endian_bytes_in_rows() -> None:
    basis = np.array([[1.0, 2.0], [3.0, -0.5]])
    expected = hashlib.sha256(struct.pack("<4d", 1.0, 2.0, 3.0, -0.5)).hexdigest()
    assert basis_digest(basis) == expected
    assert basis_digest(np.asfortranarray(basis)) == expected
    assert basis_digest(basis.astype(">f8")) == expected
    assert basis_digest(basis.T) != expected


def test_the_initial_basis_follows_from_the_seed() -> None:
    basis = VALID.initial_basis()
    assert basis.shape == (6, 2)
    assert orthonormality_error(basis) < 1e-15
    assert basis_digest(basis) == basis_digest(dataclasses.replace(VALID, rounds=99).initial_basis())
    assert basis_digest(basis) != basis_digest(dataclasses.replace(VALID, seed=2).initial_basis())


# Names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "7", "site-7", "site_7", "A.b-c_9", "_", "-", "x" * 64, "a..b"])
def test_good_agent_names(name: str) -> None:
    assert agent_id_problem(name) is None


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "a/b", "../up", "a\\b", "a b", "a\n", "\n", "ä", "١", "x" * 65, "a\0b", "a:b"],
)
def test_agent_names_that_could_not_be_file_names(name: str) -> None:
    assert "must be 1 to 64" in str(agent_id_problem(name))


def test_a_refused_name_is_not_repeated_at_full_length() -> None:
    """The sentence travels in a gRPC status, which has room for some kilobytes."""
    problem = agent_id_problem("x" * 1_000_000)
    assert problem is not None
    assert len(problem) < 300


# Secure sums ----------------------------------------------------------------------------------------------------

SECURE = dataclasses.replace(
    IMPROVING,
    improve=0,
    evaluation_rounds=0,
    trial_rounds=0,
    explore=0.0,
    confidence=0.0,
    secure_sums=True,
    min_cohort=3,
)


def test_a_run_has_secure_sums() -> None:
    assert SECURE.problems() == []
    assert SECURE.digest() != dataclasses.replace(SECURE, secure_sums=False, min_cohort=0).digest()
    assert SECURE.digest() != dataclasses.replace(SECURE, min_cohort=2).digest()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"participation": Participation.QUORUM, "quorum": 2.0}, "the masks cancel only in the sum of all members"),
        ({"agents": 2}, "agents is 2 and min_cohort is 3; of fewer processes than min_cohort"),
        ({"min_cohort": 1}, "min_cohort is 1; it must be 2 to agents = 3"),
        ({"secure_sums": False}, "min_cohort is 3; it must be 0, or set secure_sums (--secure-sums)"),
    ],
)
def test_what_a_run_with_secure_sums_cannot_have(changes: dict[str, Any], problem: str) -> None:
    assert problem in "; ".join(dataclasses.replace(SECURE, **changes).problems())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"aggregation": Aggregation.TRIMMED, "trimmed_share": 0.1}, "sees no single gradient"),
        ({"warm_up_rounds": 4}, "are each agent's own and have no sum"),
    ],
)
def test_which_methods_a_run_with_secure_sums_cannot_have(changes: dict[str, Any], problem: str) -> None:
    method = dataclasses.replace(METHOD, **changes)
    assert problem in "; ".join(dataclasses.replace(SECURE, method=method).problems())


def test_too_few_processes_form_no_sum() -> None:
    assert SECURE.cohort_problem(3) == ""
    assert dataclasses.replace(SECURE, secure_sums=False, min_cohort=0).cohort_problem(1) == ""
    assert "2 agent processes, and of fewer than min_cohort = 3" in SECURE.cohort_problem(2)
