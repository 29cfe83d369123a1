"""What agents, coordinators and observers may say, as strategies of Hypothesis."""

import math

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix
from cospan.core.method import Aggregation, HeadUpdate, Method
from cospan.core.run_fields import MAX_AGENTS, MAX_SECONDS, MIN_SESSION_TIMEOUT_SECONDS
from cospan.core.specification import MAX_NAME, RunSpecification
from cospan.wire import messages as m
from cospan.wire.limits import MAX_ROUND
from cospan.wire.text import printable

counts64 = st.integers(0, 2**64 - 1)
counts63 = st.integers(0, MAX_ROUND)
any_float = st.floats(allow_nan=False)
positive = st.floats(0.0, 1e300, exclude_min=True)
seconds = st.floats(MIN_SESSION_TIMEOUT_SECONDS, MAX_SECONDS)
quantities = st.floats(0.0, allow_infinity=False)
printables = st.characters(exclude_categories=("C", "Zl", "Zp"))
tokens = st.text(printables, max_size=128)
names = st.text(printables, max_size=MAX_NAME)
agent_ids = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", fullmatch=True)
agent_sets = st.sets(agent_ids, max_size=5).map(lambda ids: tuple(sorted(ids)))
precisions = st.sampled_from([np.float64, np.float32])


@st.composite
def arrays(
    draw: st.DrawFn, rows: int | None = None, columns: int | None = None, most: float | None = None
) -> np.ndarray:
    """A finite matrix of either precision, with entries of at most this size."""
    dtype = draw(precisions)
    shape = (rows or draw(st.integers(1, 4)), columns or draw(st.integers(1, 4)))
    width = 64 if dtype is np.float64 else 32
    least = None if most is None else -most
    numbers = st.floats(least, most, allow_nan=False, allow_infinity=False, width=width)
    return draw(hnp.arrays(dtype, shape, elements=numbers))


@st.composite
def second_moments(draw: st.DrawFn, rank: int) -> np.ndarray:
    """Σ w wᵀ of some heads, in either precision."""
    heads = draw(arrays(rank, most=2.0**60))
    wide = heads.astype(np.float64)
    return (wide @ wide.T).astype(heads.dtype)


@st.composite
def specifications(draw: st.DrawFn) -> RunSpecification:
    """Any specification without problems."""
    feature_dim = draw(st.integers(1, 6))
    head_update = draw(st.sampled_from(HeadUpdate))
    posterior = head_update is HeadUpdate.POSTERIOR
    method = Method(
        steps_per_round=draw(st.integers(1, 2**32 - 1)),
        head_update=head_update,
        reward_scaled=posterior,
        head_step=draw(positive),
        gain_step=draw(st.floats(0.0, 1.0, exclude_min=True)),
        head_radius=math.inf if posterior else draw(positive | st.just(math.inf)),
        basis_step=draw(st.floats(0.0, 1e300)),
        implicit_head_step=draw(st.booleans()),
        preconditioned=not posterior and draw(st.booleans()),
        preconditioner_floor=draw(positive),
        decay_horizon=draw(st.floats(0.0, 1e300)),
        decay_power=draw(st.floats(0.0, 1.0)),
        trace_decay=0.0 if posterior else draw(st.floats(0.0, 0.999)),
        warm_up_rounds=0 if posterior else draw(st.sampled_from([0, 2, 5])),
        aggregation=draw(st.sampled_from(Aggregation)),
        trimmed_share=draw(st.floats(0.0, 0.5, exclude_min=True, exclude_max=True)),
        clip_norm=draw(st.floats(0.0, 1e300)),
        largest_turn=draw(st.floats(0.01, 90.0)),
        first_turn=draw(st.one_of(st.just(0.0), st.floats(0.01, 90.0))),
        refresh_growth=draw(st.one_of(st.just(0.0), st.floats(1.0, 16.0))),
        refresh_sample=draw(st.integers(0, 2**32 - 1)),
    )
    return RunSpecification(
        workload=draw(names),
        feature_dim=feature_dim,
        rank=draw(st.integers(1, feature_dim)),
        agents=draw(st.integers(1, MAX_AGENTS)),
        rounds=draw(st.just(0) | st.integers(6, 2**63 - 1)),  # above the rounds of a warm-up
        seed=draw(st.integers(0, 2**63 - 1)),
        method=method,
        feature_fingerprint=draw(names),
        session_timeout_seconds=draw(seconds),
        round_timeout_seconds=draw(seconds),
    )


stamps = st.builds(m.Stamp, tokens, counts63, counts63, counts63)
heartbeats = st.builds(
    m.Heartbeat,
    saved_rounds=st.integers(0, 2**40),
    feed_silent_seconds=st.none() | st.floats(0.0, 1e9),
)
joins = st.builds(
    m.Join,
    instance_id=st.text(printables, min_size=1, max_size=64),
    agent_ids=agent_sets.filter(bool),
    feature_dim=st.integers(0, 2**32 - 1),
    feature_fingerprint=names,
    workload=names,
    client_version=st.text(printables, max_size=64),
    resumption=st.none() | st.builds(m.Resumption, tokens, tokens, counts64),
)


@st.composite
def uploads(draw: st.DrawFn, spec: RunSpecification) -> m.GradientUpload:
    d, r = spec.feature_dim, spec.rank
    gradient: DenseMatrix | FactoredMatrix = DenseMatrix(draw(arrays(d, r, most=2.0**90)))
    if draw(st.booleans()):
        factors = draw(st.integers(1, r))
        gradient = FactoredMatrix(draw(arrays(d, factors, most=2.0**90)), draw(arrays(r, factors, most=2.0**90)))
    moments = second_moments(r) if spec.method.preconditioned else st.none() | second_moments(r)
    weight, number = draw(positive), draw(counts64 | st.integers(0, 5))
    if spec.method.brings_estimates_in(number):
        gradient, weight = DenseMatrix(draw(arrays(d, 2, most=2.0**90))), 1.0
    pooled = None
    if spec.method.has_head_covariance:
        weight = float(draw(st.integers(1, 2**16)))  # it bounds the agents' weight in the step
        pooled = draw(arrays(spec.method.pooled_length(d), 1, most=2.0**90))[:, 0].astype(np.float64)
        pooled[-1] = draw(st.floats(2.0**-20, 1.0, width=32)) * weight
    return m.GradientUpload(number, Contribution(gradient, weight, draw(moments), pooled), draw(agent_sets))


@st.composite
def said_by_agents(draw: st.DrawFn) -> tuple[RunSpecification, m.AgentMessage]:
    spec = draw(specifications())
    leaves = st.builds(m.Leave, st.text(max_size=512).map(printable))
    return spec, draw(uploads(spec) | joins | leaves | heartbeats)


@st.composite
def welcomes(draw: st.DrawFn) -> m.Welcome:
    spec = draw(specifications())
    basis = draw(arrays(spec.feature_dim, spec.rank, most=1.0))
    site = draw(st.none() | st.integers(0, 2**32 - 1))
    covariance = draw(second_moments(spec.rank)).astype(np.float64) if spec.method.has_head_covariance else None
    return m.Welcome(
        draw(stamps),
        draw(tokens),
        spec,
        basis,
        draw(counts64),
        draw(st.booleans()),
        draw(agent_sets),
        site,
        head_covariance=covariance,
    )


bases = arrays(most=1.0)
said_by_coordinators = (
    welcomes()
    | st.builds(m.BasisUpdate, stamps, bases)
    | st.builds(m.Receipt, stamps, counts64, st.sampled_from(m.Disposition))
    | st.builds(m.Finish, stamps, st.sampled_from(m.FinishCause), st.text().map(printable), bases)
    | st.builds(m.Drain, stamps, st.floats(0.0, 1e300))
)
durations = st.floats(0.0, MAX_SECONDS)
agent_reports = st.builds(
    m.AgentReport,
    agent_ids,
    st.sampled_from(m.AgentPhase),
    durations,
    st.booleans(),
    counts63,
    counts63,
    st.none() | counts63,
    st.text(max_size=50).map(printable),
)
run_reports = st.builds(
    m.RunReport,
    stamps,
    specifications(),
    st.sampled_from(m.RunPhase),
    durations,
    st.lists(agent_reports, max_size=3).map(tuple),
    st.none() | st.sampled_from(m.FinishCause),
    quantities,
)
round_reports = st.builds(
    m.RoundReport,
    stamps,
    counts63,
    quantities,
    st.integers(0, 2**32 - 1),
    agent_sets,
    quantities,
    quantities,
    st.none() | bases,
    st.booleans(),
)


SPEC = RunSpecification(
    workload="w",
    feature_dim=3,
    rank=2,
    agents=2,
    rounds=5,
    seed=1,
    method=Method(4, HeadUpdate.EVERY_STEP, 0.1, 0.1, 10.0, 0.5, preconditioned=True),
)
