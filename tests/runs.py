"""What tests of the machines and of the networked fleet share: runs, agents, events, drivers of both machines."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import gymnasium
import numpy as np
import pytest
from snapshots import differs, snapshot

from cospan.client.session import machine as session
from cospan.client.workload import Site, Workload
from cospan.core.aggregation.basis_update import BasisMove, Contribution, initial_head_covariance
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.method import Method, paper
from cospan.core.specification import RunSpecification
from cospan.server import machine
from cospan.server.machine import events
from cospan.server.machine.collections.participation_counts import ParticipationCounts
from cospan.server.machine.sessions import Departure, Session, SiteClaim
from cospan.server.machine.snapshot import SavedRun
from cospan.server.machine.state import CoordinatorConfig, CoordinatorState
from cospan.server.runtime.engine import Engine
from cospan.wire import messages as m
from cospan.wire.errors import RemoteError

D, R = 4, 2
SESSION_TIMEOUT, ROUND, START, RETURN = 5.0, 60.0, 600.0, 15.0
SECONDS = 180.0
"""Until then everything that a test waits for has happened, also on a machine that does ten other things."""

_T = TypeVar("_T")


def run(coroutine: Coroutine[Any, Any, _T], seconds: float = SECONDS) -> _T:
    """Runs a coroutine in an event loop of its own; whatever it waits for, it does not wait for ever."""

    async def bounded() -> _T:
        async with asyncio.timeout(seconds):
            return await coroutine

    return asyncio.run(bounded())


async def until(engine: Engine, reached: Callable[[], bool]) -> None:
    """Waits for something that a closed round or a note of the coordinator brings about."""
    changed = asyncio.Event()
    engine.on_round.append(lambda _: changed.set())
    engine.on_note.append(lambda _: changed.set())
    while not reached():
        changed.clear()
        await changed.wait()


def specification(method: Method | None = None, **changes: Any) -> RunSpecification:
    values: dict[str, Any] = {
        "workload": "tests",
        "feature_dim": D,
        "rank": R,
        "agents": 2,
        "rounds": 3,
        "seed": 1,
        "method": paper(3) if method is None else method,
        "session_timeout_seconds": SESSION_TIMEOUT,
        "round_timeout_seconds": ROUND,
    }
    return RunSpecification(**(values | changes))


def announced(specification: RunSpecification) -> tuple[np.ndarray, np.ndarray | None]:
    """What round 0 is announced with: B_0, and W_0 where the method has it."""
    return specification.initial_basis(), initial_head_covariance(specification.method, specification.rank)


def join(*agents: str, instance: str = "", **changes: Any) -> m.Join:
    """A process that hosts `agents`; its instance id follows from their names where none is given."""
    values: dict[str, Any] = {
        "instance_id": instance or f"process of {'+'.join(agents)}",
        "agent_ids": tuple(sorted(agents)),
        "feature_dim": D,
        "feature_fingerprint": "map-1",
    }
    return m.Join(**(values | changes))


def upload(round_number: int, *agents: str, weight: float = 1.0, value: float = 1.0) -> m.GradientUpload:
    """A gradient with one number everywhere, of all agents of its session where none are named."""
    gradient = DenseMatrix(np.full((D, R), value))
    return m.GradientUpload(round_number, Contribution(gradient, weight), tuple(sorted(agents)))


def moved(state: CoordinatorState, round_number: int) -> events.BasisComputed:
    """The arithmetic of a round is done; the basis is the old one with its columns exchanged."""
    after = np.ascontiguousarray(state.basis[:, ::-1])
    move = BasisMove(state.basis, after, head_covariance=state.head_covariance)
    return events.BasisComputed(round_number, move)


def with_inflight_rounds(state: CoordinatorState, most: int) -> CoordinatorState:
    """The state of a coordinator that announces at most this many rounds before they are durable."""
    return state.evolve(config=state.config.evolve(max_inflight_rounds=most))


def kinds(commands: tuple[Any, ...]) -> list[str]:
    """What sort of commands these are, messages and notes by their own kind."""
    names = []
    for command in commands:
        match command:
            case (
                events.Send(message=message) | events.Broadcast(message=message) | session.Transmit(message=message)
            ):
                names.append(f"{type(command).__name__} {type(message).__name__}")
            case events.Note(kind=kind):
                names.append(kind)
            case events.StoreMember() | events.DropMember() | events.StoreSpecification():
                pass  # what is stored of members is looked at where that is tested
            case _:
                names.append(type(command).__name__)
    return names


class Disk:
    """What a store holds, in memory: the same as `cospan.server.storage.writer` makes of the same operations."""

    def __init__(self, specification: RunSpecification, run_id: str = "run-1") -> None:
        self.run_id, self.specification = run_id, specification
        self.rounds: list[events.RoundRecord] = []
        self.sessions: dict[str, Session] = {}
        self.site_claims: dict[str, SiteClaim] = {}
        self.departures: dict[str, Departure] = {}

    def write(self, operations: Sequence[events.Command]) -> None:
        for operation in operations:
            match operation:
                case events.StoreRound(record=record):
                    assert record.closed_round == len(self.rounds), "rounds are stored once each, in turn"
                    self.rounds.append(record)
                case events.StoreSpecification(specification=fixed):
                    self.specification = fixed
                case events.StoreMember(session=member):
                    self._write_member(member)
                case events.DropMember(token=token, departures=departures):
                    self.sessions.pop(token, None)
                    self.departures |= {gone.agent_id: replace(gone, last_seen=0.0) for gone in departures}

    def _write_member(self, member: Session) -> None:
        lost = replace(member, stream=0, phase=m.AgentPhase.LOST, last_seen=0.0, opened=0.0)
        self.sessions[member.token] = lost
        if member.site_index is not None:
            self.site_claims[member.site_claim_id] = SiteClaim(member.site_index, member.instance_id)
        for agent in member.agent_ids:
            self.departures.pop(agent, None)

    def saved(self) -> SavedRun:
        """What a coordinator that resumes the run is given."""
        last = self.rounds[-1] if self.rounds else None
        oldest = len(self.rounds) - max(1, self.specification.max_staleness)
        counted: Counter[str] = Counter()
        last_rounds: dict[str, int] = {}
        accepted: dict[int, frozenset[str]] = {}
        for number, record in enumerate(self.rounds):
            counted.update(record.contributors.keys())
            last_rounds.update(dict.fromkeys(record.contributors, number))
            for agent, of in record.contributors.items():
                if of >= oldest:
                    accepted[of] = accepted.get(of, frozenset()) | {agent}
        return SavedRun(
            run_id=self.run_id,
            specification=self.specification,
            round=len(self.rounds),
            basis=last.move.basis if last else None,
            head_covariance=last.move.head_covariance if last else None,
            step_memory=last.move.step_memory if last else None,
            sessions=tuple(self.sessions[token] for token in sorted(self.sessions)),
            site_claims=dict(self.site_claims),
            departures=tuple(self.departures.values()),
            last_contributors=frozenset(last.contributors) if last else frozenset(),
            accepted=accepted,
            rounds_counted=ParticipationCounts(counted, last_rounds),
        )


class CoordinatorDriver:
    """Steps the coordinator's machine with a clock of its own, and checks after every event what always holds."""

    def __init__(
        self,
        site_limit: int | None = None,
        max_inflight_rounds: int = 2,
        first_gradient_timeout_seconds: float = 0.0,
        **changes: Any,
    ) -> None:
        self.now = 0.0
        config = CoordinatorConfig("run-1", 1, START, 15.0, first_gradient_timeout_seconds, site_limit=site_limit)
        self.state = machine.initial_state(specification(**changes), config, 0.0)
        self.state = with_inflight_rounds(self.state, max_inflight_rounds)
        self.state.check()
        assert self.state.specification.problems() == []
        self._held = self.state, snapshot(self.state)
        self.commands: tuple[events.Command, ...] = ()
        self._streams = itertools.count(1)

    def step(self, event: events.Event) -> list[str]:
        """Lets an event happen; the kinds of the commands that follow, which stay in `commands`."""
        before = self.state
        held = self._snapshot()
        try:
            self.state, self.commands = machine.step(self.state, event, self.now)
        finally:
            assert snapshot(before) == held, "a step wrote to the state that it was given"
        self.state.check()
        if self.state.specification is not before.specification:  # it is frozen
            assert self.state.specification.problems() == []
        self._check_deadline()
        return kinds(self.commands)

    def _check_deadline(self) -> None:
        """Before the deadline a tick changes nothing, and at the deadline it changes something."""
        deadline = machine.next_deadline(self.state)
        over = self.state.phase in (m.RunPhase.FINISHED, m.RunPhase.DRAINING)
        assert (deadline is None) == over, "every wait has a bound"
        if deadline is not None:
            held = self._snapshot()
            early, commands = machine.step(self.state, events.Tick(), float(np.nextafter(deadline, -np.inf)))
            assert commands == (), f"a tick before the deadline brings {kinds(commands)}"
            assert snapshot(early) == held
            late, _ = machine.step(self.state, events.Tick(), deadline)
            assert differs(late, self.state), "the deadline passes without an effect"

    def _snapshot(self) -> dict[str, Any]:
        """That of the state, as it was when the state was first seen."""
        if self._held[0] is not self.state:
            self._held = self.state, snapshot(self.state)
        return self._held[1]

    def restart(self, saved: SavedRun) -> None:
        """The coordinator is gone, and another resumes from what was stored."""
        config = self.state.config
        restarted = CoordinatorConfig(
            saved.run_id, config.incarnation + 1, START, RETURN, site_limit=config.site_limit
        )
        self.state = machine.restored_state(saved, restarted, self.now)
        self.state = with_inflight_rounds(self.state, config.max_inflight_rounds)
        self.commands = ()
        self.state.check()
        self._check_deadline()

    def refuse(self, event: events.Event, error: type[RemoteError], match: str | None = None) -> None:
        """The event is refused with this error, and changes nothing."""
        state = self.state
        with pytest.raises(error, match=match):
            self.step(event)
        assert self.state is state

    def join(self, *agents: str, **changes: Any) -> str:
        """A process joins or comes back; its token."""
        self.step(self.joining(*agents, **changes))
        return self.welcome().session_token

    def joining(self, *agents: str, **changes: Any) -> events.JoinRequested:
        """A join over a new stream, with a new token."""
        number = next(self._streams)
        return events.JoinRequested(join(*agents, **changes), number, f"token-{number}")

    def claiming(self, site_claim_id: str, **changes: Any) -> events.JoinRequested:
        """A process that brings no site asks for one."""
        return self.joining(site_claim_id=site_claim_id, **{"instance": f"process of {site_claim_id}"} | changes)

    def claim_site(self, site_claim_id: str, **changes: Any) -> m.Welcome:
        """It is given one."""
        self.step(self.claiming(site_claim_id, **changes))
        return self.welcome()

    def resuming(self, token: str, **changes: Any) -> events.JoinRequested:
        """The process of a session comes back over a new stream."""
        known = self.state.members.sessions[token]
        resumption = m.Resumption(token, self.state.config.run_id, self.state.round)
        values = {"instance": known.instance_id, "resumption": resumption} | changes
        return self.joining(*known.agent_ids, **values)

    def stream(self, token: str) -> int:
        return self.state.members.sessions[token].stream

    def sent(self) -> list[Any]:
        """The messages among the last commands."""
        return [command.message for command in self.commands if isinstance(command, events.Send | events.Broadcast)]

    def welcome(self) -> m.Welcome:
        return next(message for message in self.sent() if isinstance(message, m.Welcome))

    def gradient(self, token: str, round_number: int | None = None, *agents: str, **values: Any) -> list[str]:
        """A session sends a gradient, that of the open round unless told otherwise."""
        number = self.state.round if round_number is None else round_number
        named = agents or self.state.members.sessions[token].agent_ids
        return self.step(events.GradientArrived(token, upload(number, *agents, weight=float(len(named)), **values)))

    def compute(self) -> list[str]:
        """The arithmetic of the round that closes is done, and what came of it is stored."""
        told = self.step(moved(self.state, self.state.round))
        commands = self.commands
        for command in commands:
            if isinstance(command, events.StoreRound):
                told = [kind for kind in told if kind != "StoreRound"] + self.stored(command)
        self.commands = (*commands, *self.commands)
        return told

    def stored(self, command: events.StoreRound) -> list[str]:
        """A round is on the disk."""
        return self.step(events.RoundsStored((command.record,)))

    def wait(self, seconds: float) -> list[str]:
        """Time passes, and the clock ticks."""
        self.now += seconds
        return self.step(events.Tick())

    def report(self) -> m.RoundReport:
        """The report of a round among the last commands."""
        return next(command.report for command in self.commands if isinstance(command, events.ReportRound))

    def receipt(self) -> m.Receipt:
        """The receipt among the last commands."""
        return next(message for message in self.sent() if isinstance(message, m.Receipt))


class AgentDriver:
    """Steps the agent's machine with a clock of its own, and checks after every event what always holds."""

    def __init__(self, progress_timeout_seconds: float = 60.0, *, near: bool = False, **changes: Any) -> None:
        self.now = 100.0
        self.specification = specification(**({"rounds": 0} | changes))  # tests begin in any round
        self.basis = self.specification.initial_basis()
        self.state, self.commands = session.initial_state(
            progress_timeout_seconds=progress_timeout_seconds, now=self.now, near=near
        )
        self.state.check()

    def step(self, event: session.Event) -> list[str]:
        """Lets an event happen; the kinds of the commands that follow, which stay in `commands`."""
        before, held = self.state, snapshot(self.state)
        try:
            self.state, self.commands = session.step(self.state, event, self.now)
        finally:
            assert snapshot(before) == held, "a step wrote to the state that it was given"
        self.state.check()
        return kinds(self.commands)

    def stamp(self, round_number: int, run_id: str = "run-1") -> m.Stamp:
        return m.Stamp(run_id, 1, round_number, round_number)

    def receive(self, message: m.CoordinatorMessage) -> list[str]:
        return self.step(session.Received(message))

    def prepare(self) -> list[str]:
        """From nothing to a site that is made."""
        self.step(session.Described(self.specification))
        return self.step(session.Prepared(join("a")))

    def welcome(self, round_number: int = 0, **changes: Any) -> m.Welcome:
        values: dict[str, Any] = {
            "stamp": self.stamp(round_number),
            "session_token": "token-1",
            "specification": replace(self.specification, feature_fingerprint="map-1"),
            "basis": self.basis,
            "head_covariance": announced(self.specification)[1],
            "first_round": round_number,
            "started": True,
        }
        return m.Welcome(**(values | changes))

    def activate(self, round_number: int = 0, **changes: Any) -> list[str]:
        """From nothing to the first welcome."""
        self.prepare()
        self.step(session.Connected())
        return self.receive(self.welcome(round_number, **changes))

    def update(self, round_number: int) -> list[str]:
        """A round opens."""
        return self.receive(m.BasisUpdate(self.stamp(round_number), self.basis))

    def learn(self) -> list[str]:
        """The learner is done with its round."""
        assert self.state.learning is not None
        return self.step(session.GradientReady(upload(self.state.learning)))

    def wait(self, seconds: float) -> list[str]:
        """Time passes, and the clock ticks."""
        self.now += seconds
        return self.step(session.Tick())


# A small workload ---------------------------------------------------------------------------------------


class Ring(gymnasium.Env[int, int]):
    """A walk on a ring of D + 1 states; the further from state 0, the better, and each site is paid differently."""

    def __init__(self, index: int) -> None:
        self.observation_space = gymnasium.spaces.Discrete(D + 1)
        self.action_space = gymnasium.spaces.Discrete(2)
        self._index, self._state = index, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self._state = 0
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        direction = 1 if self.np_random.random() < 0.3 + 0.1 * (self._index % 5) else -1
        self._state = (self._state + direction * (1 + action)) % (D + 1)
        return self._state, float(min(self._state, D + 1 - self._state)) + 0.1 * self._index, False, False, {}


class States:
    """One-hot features of the states 1 … D."""

    def __init__(self, dim: int = D, fingerprint: str = "map-1") -> None:
        self.dim, self.fingerprint = dim, fingerprint

    def __call__(self, observation: Any) -> np.ndarray:
        return self.batch([observation])[0]

    def batch(self, observations: Any) -> np.ndarray:
        return np.eye(self.dim + 1)[list(observations)][:, 1:]


def coin(_observation: Any, rng: np.random.Generator) -> int:
    """Either action, at random."""
    return int(rng.integers(2))


def ring_site(index: int, seed: int) -> Site:
    return Site(env=Ring(index), features=States(), policy=coin)


RINGS = Workload(make_site=ring_site, name="rings", rank=R, steps_per_round=3)
