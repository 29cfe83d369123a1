"""From the specification to the welcome: what a process has to agree to before it takes part in rounds."""

from dataclasses import replace

from cospan.client.session.machine.events import Agree, Begin, Command, Connect, Prepare, Transmit
from cospan.client.session.machine.reconnecting import closed, progressed
from cospan.client.session.machine.rounds import take_part
from cospan.client.session.machine.secure_sums import epoch_id_of
from cospan.client.session.machine.state import Outcome, Phase, SessionState, failed
from cospan.client.session.message_checks import feature_problem, welcome_problem
from cospan.client.session.run_checks import unmet
from cospan.core.specification import RunSpecification
from cospan.wire.errors import OutOfTurnError
from cospan.wire.messages import Join, Resumption, Welcome


def on_described(state: SessionState, specification: RunSpecification) -> Outcome:
    """Asks for the site, or refuses a run that shows more than is allowed, before anything was sent to it."""
    refusal = unmet(specification, state.demands)
    if refusal is not None:
        return failed(state, refusal)
    state = state.evolve(phase=Phase.PREPARING, described=specification, attempts=0)
    return state, (Prepare(specification),)


def on_prepared(state: SessionState, join: Join, now: float) -> Outcome:
    """Connects, unless the run's features are not those of the site, even where a coordinator would accept them."""
    if state.described is not None:
        problem = feature_problem(state.described, join.feature_dim, join.feature_fingerprint)
        if problem is not None:
            return failed(state, problem)
    # Making a site may take long, and happens once.
    return state.evolve(phase=Phase.OFFLINE, join=join, lost_since=now), (Connect(0.0),)


def on_regrouped(state: SessionState, agent_ids: tuple[str, ...], now: float) -> Outcome:
    """Joins again, as these agents. A kept sum over others cannot be sent any more; its round is learnt again.

    Raises:
        OutOfTurnError: the site is not made yet.
    """
    if state.join is None:
        raise OutOfTurnError("other agents came before the site was made")
    hosted, before = set(agent_ids), state.join.agent_ids
    # An upload without names is the sum over all agents that joined.
    kept = tuple(each for each in state.kept if hosted.issuperset(each.upload.agent_ids or before))
    join = replace(state.join, agent_ids=agent_ids)
    return closed(state, now, wanted=True).evolve(join=join, token=None, kept=kept), (Connect(0.0),)


def on_connected(state: SessionState, now: float) -> Outcome:
    """Asks to join, and shows the token of an earlier session.

    Raises:
        OutOfTurnError: the site is not made yet.
    """
    if state.join is None:
        raise OutOfTurnError("connected before the site was made")
    join = state.join
    if state.token is not None and state.stamp is not None:
        join = replace(join, resumption=Resumption(state.token, state.stamp.run_id, state.last_announced_round))
    return state.evolve(phase=Phase.JOINING, last_sent=now), (Transmit(join),)


def on_welcome(state: SessionState, welcome: Welcome, now: float) -> Outcome:
    """Takes the session that the coordinator offers, unless it does not answer the join."""
    first = state.specification is None
    problem = welcome_problem(welcome, state.join, state.described)
    if problem is not None:
        return failed(state, problem)
    before = state.stamp
    state = state.evolve(
        phase=Phase.ACTIVE,
        join=_with_site(state.join, welcome),
        specification=welcome.specification,
        token=welcome.session_token,
        stamp=welcome.stamp,
        last_announced_round=max(state.last_announced_round, welcome.stamp.round),
        basis=welcome.basis,
        head_covariance=welcome.head_covariance,
        epoch_id=epoch_id_of(welcome.membership),
        is_open=welcome.started and welcome.stamp.round >= welcome.first_round,
        kept=tuple(each for each in state.kept if each.upload.round >= welcome.stamp.durable_round),
        reconnects=state.reconnects + (0 if first else 1),
        last_sent=now,
        open_since=now,
        has_progressed=False,
        coordinator_started=welcome.coordinator_started,
        attempts=0,
    )
    if before is None or welcome.stamp.durable_round > before.durable_round:
        state = progressed(state, now)
    begins = not welcome.started and not welcome.stamp.round and not welcome.specification.secure_sums
    if state.passes_on and begins:  # the first round may be over more agents than the sum (cospan.relay.restarts)
        state = state.evolve(kept=(), learning=None, learning_at=None)
    commands: tuple[Command, ...] = (Begin(welcome),) if first else ()
    if welcome.membership is not None and state.epoch_id != state.agreed:
        commands += (Agree(welcome.membership),)
    state, more = take_part(state, now)
    return state, commands + more


def _with_site(join: Join | None, welcome: Welcome) -> Join | None:
    """How to join from now on: an agent that was given a site has a name."""
    return replace(join, agent_ids=welcome.agent_ids, site_claim_id="") if join and join.site_claim_id else join
