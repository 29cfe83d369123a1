"""A process that was killed and started again comes to the bits of one that never was, or says why not."""

import asyncio
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import Ring, States, coin, specification
from values import same as equal

from cospan.client.files.agent_result import AgentResult
from cospan.client.files.kept_gradients import kept_values, loaded_kept
from cospan.client.files.persistence import LearnerContext, StateKeeper, StatePolicy, StoppedError
from cospan.client.files.result_file import contents, load_result
from cospan.client.files.state_file import ONE_AGENT, FileKind
from cospan.client.learning.site_learner import SiteLearner, Warned
from cospan.client.session.machine import KeptGradient
from cospan.client.workload import Site
from cospan.core.method import PRESETS
from cospan.core.specification import RunSpecification
from cospan.wire.codec.messages import encode_agent_message
from cospan.wire.errors import BasisRefusedError, CoordinatorUnavailableError, RemoteError
from cospan.wire.messages import GradientUpload, RecalledBasis, RecalledRounds

ROUNDS = 20
PAGE = 7
SPEC = specification(PRESETS["practical"](3), feature_fingerprint="map-1", rounds=ROUNDS)


class SavingRing(Ring):
    """One that can save where it stands."""

    def save_state(self) -> dict[str, Any]:
        return {"state": self._state}

    def load_state(self, state: dict[str, Any]) -> None:
        self._state = state["state"]


def made(first_round: int = 0, *, saves: bool = True) -> SiteLearner:
    env = SavingRing(1) if saves else Ring(1)
    site = Site(env=env, features=States(), policy=coin)
    return SiteLearner(site, SPEC, name="site-1", index=1, first_round=first_round)


def basis_at(number: int, speed: float = 0.02) -> np.ndarray:
    """One that turns by about a degree a round."""
    start, way = np.random.default_rng(7).standard_normal((2, SPEC.feature_dim, SPEC.rank))
    return np.linalg.qr(start + speed * number * way)[0]


def covariance_at(number: int) -> np.ndarray | None:
    """One that grows with the rounds; None where the method has none."""
    if not SPEC.method.has_head_covariance:
        return None
    return np.diag(np.linspace(1.0, 2.0, SPEC.rank)) * (1.0 + 0.1 * number)


class Coordinator:
    """One that has kept the bases from some round on."""

    def __init__(self, kept_from: int = 0, failures: list[Exception] | None = None) -> None:
        self.kept_from, self.failures = kept_from, list(failures or [])
        self.asked: list[tuple[str, int, int]] = []

    async def recall(self, spec: RunSpecification, token: str, first: int, before: int) -> RecalledRounds:
        if self.failures:
            raise self.failures.pop(0)
        self.asked.append((token, first, before))
        if first < self.kept_from:
            return RecalledRounds((), before, self.kept_from - first)
        until = min(first + PAGE, before)
        return RecalledRounds(
            tuple(RecalledBasis(number, basis_at(number), covariance_at(number)) for number in range(first, until)),
            until,
        )


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The event loop of the conversation, which is not the thread that learns."""
    found = asyncio.new_event_loop()
    thread = threading.Thread(target=found.run_forever)
    thread.start()
    yield found
    found.call_soon_threadsafe(found.stop)
    thread.join()
    found.close()


class Process:
    """An agent's process as far as its keeper goes: it learns at the coordinator's bases, until it is killed."""

    def __init__(
        self,
        folder: Path,
        loop: asyncio.AbstractEventLoop,
        coordinator: Any = None,
        *,
        first_round: int = 0,
        saves: bool = True,
        progress_timeout_seconds: float = 5.0,
    ) -> None:
        self.durable, self.ends, self.told = 0, False, list[int]()
        around = LearnerContext(
            lambda: "token", lambda: self.durable, lambda: self.ends, self.told.append, progress_timeout_seconds
        )
        self.keeper: StateKeeper[SiteLearner] = StateKeeper(
            lambda number: made(number, saves=saves),
            ONE_AGENT,
            StatePolicy.of(None, folder / "site-1.npz", 1e-9),
            around,
            run_id="run-1",
            first_round=first_round,
        )
        self.coordinator, self._loop = coordinator or Coordinator(), loop
        self.words = ""

    def learn(self, number: int) -> GradientUpload:
        known = self.keeper.upload_of(number, basis_at(number), covariance_at(number))
        if known is not None:
            return known
        self.words = self.keeper.come_back(number, self.coordinator, self._loop) or self.words
        return self.keeper.learn(number, basis_at(number), covariance_at(number))

    def checkpoint(self) -> None:
        self.keeper.after_last_round()
        assert self.keeper.state_file is not None
        self.keeper.state_file.finish()


def same(one: SiteLearner, other: SiteLearner) -> bool:
    """Whether two learners hold the same, bit for bit, where their chains stand included."""
    ours, theirs = (contents(each, run_id="run-1") for each in (one, other))
    return ours.keys() == theirs.keys() and all(
        np.array_equal(
            np.asarray(ours[name]), np.asarray(theirs[name]), equal_nan=np.asarray(ours[name]).dtype.kind == "f"
        )
        for name in ours
    )


def whole() -> SiteLearner:
    """A learner that was never stopped, of the present specification; nothing of it may be changed."""
    return _whole(SPEC)


@functools.cache
def _whole(of: RunSpecification) -> SiteLearner:
    assert of == SPEC
    learner = made()
    for number in range(ROUNDS):
        learner.learn(number, basis_at(number), covariance_at(number))
    return learner


@pytest.fixture(params=["practical", "full-history"])
def _preset(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SPEC", replace(SPEC, method=PRESETS[request.param](3)))


@pytest.mark.usefixtures("_preset")
@pytest.mark.parametrize("saves", [True, False])
@pytest.mark.parametrize("written", [None, 1, 8, 15])
def test_what_was_learnt_after_the_last_write_is_learnt_again(
    tmp_path: Path, loop: asyncio.AbstractEventLoop, written: int | None, saves: bool
) -> None:
    """From its file; from its beginning where it has none, or one that its chain cannot go on from."""
    first = Process(tmp_path, loop, saves=saves)
    for number in range(15):
        first.learn(number)
        if number + 1 == written:
            first.durable = number
            first.checkpoint()
    coordinator = Coordinator()
    second = Process(tmp_path, loop, coordinator, first_round=15, saves=saves)
    for number in range(15, ROUNDS):
        second.learn(number)
    assert same(second.keeper.learner, whole()) or not saves
    assert np.array_equal(second.keeper.learner.weights.mean, whole().weights.mean)
    assert second.keeper.is_exact
    from_file = written or 0 if saves else 0
    assert f"learnt {15 - from_file} rounds again" in second.words if from_file < 15 else second.words == ""
    assert [asked[1] for asked in coordinator.asked] == list(range(from_file, 15, PAGE))


def test_gradients_that_may_be_asked_for_again_are_in_the_file(
    tmp_path: Path, loop: asyncio.AbstractEventLoop
) -> None:
    """The coordinator has lost the rounds from 9 on, which were not on its disk; the agent had learnt 12."""
    first = Process(tmp_path, loop)
    sent = []
    for number in range(12):
        first.durable = min(number, 9)
        sent.append(first.learn(number))
    first.checkpoint()
    kept = loaded_kept(load_result(tmp_path / "site-1.npz"), SPEC)
    assert [each.upload.round for each in kept] == [9, 10, 11]
    coordinator = Coordinator()
    second = Process(tmp_path, loop, coordinator, first_round=9)
    for number in range(9, ROUNDS):
        upload = second.learn(number)
        if number < 12:
            assert encode_agent_message(upload) == encode_agent_message(sent[number])
    assert same(second.keeper.learner, whole())
    assert coordinator.asked == []


def test_another_basis_than_then_takes_another_gradient(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    first = Process(tmp_path, loop)
    first.learn(0)
    first.checkpoint()
    second = Process(tmp_path, loop)
    assert second.keeper.upload_of(0, basis_at(0), covariance_at(0)) is not None
    assert second.keeper.upload_of(0, basis_at(1), covariance_at(0)) is None
    assert second.keeper.upload_of(0, basis_at(0), covariance_at(1)) is None
    assert second.keeper.upload_of(1, basis_at(0), covariance_at(1)) is None


@pytest.mark.parametrize("written", [None, 8])
def test_bases_that_are_not_kept_are_named(
    tmp_path: Path, loop: asyncio.AbstractEventLoop, written: int | None
) -> None:
    first = Process(tmp_path, loop)
    for number in range(written or 0):
        first.learn(number)
    first.checkpoint()
    second = Process(tmp_path, loop, Coordinator(kept_from=10), first_round=15)
    second.learn(15)
    assert not second.keeper.is_exact
    assert f"{10 - (written or 0)} rounds that it had learnt after its file was written" in second.words
    assert second.keeper.learner.rounds == (written or 0) + 1


def test_a_newcomer_has_nothing_to_learn_again(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    class Knows(Coordinator):
        async def recall(self, spec: RunSpecification, token: str, first: int, before: int) -> RecalledRounds:
            return RecalledRounds((), before)

    newcomer = Process(tmp_path, loop, Knows(), first_round=15)
    newcomer.learn(15)
    alone = made(15)
    alone.learn(15, basis_at(15), covariance_at(15))
    assert same(newcomer.keeper.learner, alone)
    assert (newcomer.words, newcomer.keeper.is_exact) == ("", True)


def test_a_coordinator_that_is_away_is_asked_again(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    away = CoordinatorUnavailableError("the connection was refused")
    process = Process(tmp_path, loop, Coordinator(failures=[away]), first_round=3)
    process.learn(3)
    assert process.keeper.learner.rounds == 4
    (tmp_path / "no").mkdir()
    impatient = Process(
        tmp_path / "no", loop, Coordinator(failures=[away]), first_round=3, progress_timeout_seconds=0.0
    )
    with pytest.raises(CoordinatorUnavailableError):
        impatient.learn(3)


def test_a_coordinator_that_knows_no_such_question_is_done_without(
    tmp_path: Path, loop: asyncio.AbstractEventLoop
) -> None:
    first = Process(tmp_path, loop)
    first.learn(0)
    first.checkpoint()
    process = Process(tmp_path, loop, Coordinator(failures=[RemoteError("unimplemented")]), first_round=3)
    process.learn(3)
    assert (process.keeper.is_exact, process.keeper.learner.rounds) == (False, 2)
    assert "does not give their bases" in process.words


def test_a_transport_that_cannot_ask_is_done_without(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    process = Process(tmp_path, loop, object(), first_round=3)
    process.learn(3)
    assert process.keeper.learner.rounds == 1


def test_who_is_to_end_does_not_learn_on(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    process = Process(tmp_path, loop, first_round=9)
    process.ends = True
    with pytest.raises(StoppedError):
        process.learn(9)


def test_what_is_in_the_file_is_told_when_it_is_there(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    process = Process(tmp_path, loop)
    written = threading.Event()
    assert process.keeper.state_file is not None
    process.keeper.state_file.on_saved = lambda rounds: (process.told.append(rounds), written.set())[1]
    process.learn(0)
    process.keeper.save_now_and_then()
    assert written.wait(20.0)
    assert process.told == [1]
    process.checkpoint()
    again = Process(tmp_path, loop, first_round=1)
    assert again.told == [1], "a process that resumes from its file says how far that is"
    (tmp_path / "no").mkdir()
    unsaved = Process(tmp_path / "no", loop, saves=False)
    assert unsaved.told == []


def test_a_file_whose_gradients_are_damaged_is_gone_on_from_without_them(
    tmp_path: Path, loop: asyncio.AbstractEventLoop
) -> None:
    first = Process(tmp_path, loop)
    first.learn(0)
    first.checkpoint()
    file = tmp_path / "site-1.npz"
    spoilt = {
        "kept_uploads": np.frombuffer(b"\xff\xff", np.uint8),
        "kept_sizes": np.array([1], np.int64),
        "kept_bases": np.zeros((1, 2, 9)),
    }
    for name, value in spoilt.items():
        found = load_result(file)
        assert loaded_kept(found, SPEC) != ()
        found.values.pop(name)
        assert loaded_kept(found, SPEC) == ()
        found.values[name] = value
        assert loaded_kept(found, SPEC) == ()
    found.values.update({"kept_bases": np.zeros((2, 4, 2)), "kept_sizes": np.array([-1, 3], np.int64)})
    assert loaded_kept(found, SPEC) == ()


@pytest.mark.parametrize(
    ("bases", "says"),
    [
        (lambda number: 1.01 * basis_at(number), "the basis of round 8 is not orthonormal"),
        (
            lambda number: basis_at(number, 0.0 if number < 10 else 5.0),
            "round 10 is turned by .* from that of round 9",
        ),
    ],
)
def test_bases_of_then_are_looked_at_as_those_of_now(
    tmp_path: Path, loop: asyncio.AbstractEventLoop, bases: Callable[[int], np.ndarray], says: str
) -> None:
    """A gradient at one of them may be sent, when the coordinator goes back to its round."""

    class Choosing(Coordinator):
        async def recall(self, spec: RunSpecification, token: str, first: int, before: int) -> RecalledRounds:
            return RecalledRounds(
                tuple(
                    RecalledBasis(number, bases(number), covariance_at(number)) for number in range(first, before)
                ),
                before,
            )

    first = Process(tmp_path, loop)
    for number in range(8):
        first.learn(number)
    first.checkpoint()
    again = Process(tmp_path, loop, Choosing())
    with pytest.raises(BasisRefusedError, match=says):
        again.learn(15)


class Sums:
    """A group as far as a keeper goes: it drops its last member in round 3."""

    specification, name, warnings = SPEC, "group-0..2", list[Warned]()

    def __init__(self) -> None:
        self.names, self.rounds, self.last_round = ("site-0", "site-1", "site-2"), 0, None

    def learn(
        self, round_number: int, basis: np.ndarray, head_covariance: np.ndarray | None = None
    ) -> GradientUpload:
        if round_number == 3:
            self.names = self.names[:2]
        return made().learn(round_number, basis, head_covariance)


def test_a_sum_with_a_member_that_has_failed_is_not_sent_again(
    tmp_path: Path, loop: asyncio.AbstractEventLoop
) -> None:
    """The coordinator goes back to a round before it failed: the round is learnt again, without it."""
    kind: FileKind[Any] = FileKind(contents=lambda *_: {}, load=load_result, resume=lambda *_: "")
    around = LearnerContext(lambda: "token", lambda: 0, lambda: False, lambda _: None, 5.0)
    keeper: StateKeeper[Any] = StateKeeper(
        lambda _: Sums(), kind, StatePolicy.of(None, tmp_path, 0.0), around, run_id="run-1", first_round=0
    )
    for number in range(3):
        keeper.learn(number, basis_at(number), covariance_at(number))
    assert keeper.upload_of(2, basis_at(2), covariance_at(2)) is not None
    keeper.learn(3, basis_at(3), covariance_at(3))
    assert keeper.upload_of(2, basis_at(2), covariance_at(2)) is None
    assert keeper.upload_of(3, basis_at(3), covariance_at(3)) is not None


def test_who_asks_is_the_session_of_what_was_posted_before(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    """A group that was started again without a member joins without it first: with it, rounds count as lost."""
    first = Process(tmp_path, loop)
    for number in range(3):
        first.learn(number)
    first.checkpoint()
    again, busy, tokens = Process(tmp_path, loop), threading.Event(), ["of all"]
    again.keeper._around = replace(again.keeper._around, token=lambda: tokens[-1])
    loop.call_soon_threadsafe(busy.wait, 0.1)
    loop.call_soon_threadsafe(tokens.append, "of those that are left")
    again.learn(6)
    assert again.coordinator.asked == [("of those that are left", 3, 6)]


def test_a_gradient_is_kept_with_its_head_covariance() -> None:
    learner = made()
    made_at = [(basis_at(number), covariance_at(number)) for number in (0, 1)]
    kept = [KeptGradient(learner.learn(number, *at), *at) for number, at in enumerate(made_at)]
    values = kept_values(kept)
    found = loaded_kept(AgentResult(values), SPEC)
    assert all(equal(one, other) for one, other in zip(found, kept, strict=True))
    assert found[1].is_of(1, basis_at(1), covariance_at(1))
    assert not found[1].is_of(1, basis_at(1), covariance_at(0))
    assert not found[1].is_of(1, basis_at(1), None)
    for odd in (np.zeros((2, 1, 1)), np.zeros((0, 0, 0))):
        assert loaded_kept(AgentResult(values | {"kept_head_covariances": odd}), SPEC) == ()
