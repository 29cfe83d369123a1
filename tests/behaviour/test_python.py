"""Cospan as a program or a notebook uses it: fleets in this process, a coordinator and agents that are awaited."""

import asyncio
import json
import os
import re
import runpy
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from behaviour import toy_workload as toy
from behaviour.command import in_this_process
from runs import SECONDS, run, until

from cospan.client import Agent, AgentGroup, ValueFunction, Workload, load_workload, specify
from cospan.core.method import Aggregation, paper
from cospan.core.run_fields import Participation
from cospan.server import Coordinator
from cospan.simulation import Fleet, FleetResult
from cospan.wire.errors import InvalidValueError, WorkloadBehaviourError, WorkloadError

ROOT = Path(__file__).resolve().parents[2]
TOY = toy.workload


def small(workload: Workload | str = TOY, **changes: Any) -> Fleet:
    values: dict[str, Any] = {"agents": 3, "rounds": 12, "seed": 1}
    return Fleet(workload, **(values | changes))


def bits(result: FleetResult) -> tuple[bytes, ...]:
    return result.basis.tobytes(), *(agent.weights.tobytes() for agent in result.agents)


# A fleet in this process ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--processes", "2"), ("--preset", "paper", "--steps-per-round", "7")])
def test_a_fleet_comes_to_the_bits_of_the_command(tmp_path: Path, options: tuple[str, ...]) -> None:
    folder = tmp_path / "run"
    size = ("--agents", "4", "--rounds", "25", "--seed", "3", "--in-process", "--quiet", "--output", str(folder))
    assert in_this_process("run", "queues", *size, *options) == 0
    said: dict[str, Any] = {"groups": 2} if "--processes" in options else {}
    said |= {"preset": "paper", "steps_per_round": 7} if "--preset" in options else {}
    result = Fleet("queues", agents=4, rounds=25, seed=3, **said).run()
    document = json.loads((folder / "result.json").read_text())
    assert result.basis_sha256 == document["basis_sha256"]
    for name in ("value_error", "gain_error", "subspace_error"):
        assert getattr(result, name) == document[name]
    if "--processes" not in options:
        assert result.td_alone_error == document["baselines"]["td_alone"]
    known = document["baselines"]["lstd_alone"]
    assert np.isnan(result.lstd_alone_error) if known is None else result.lstd_alone_error == known
    table = np.genfromtxt(folder / "rounds.csv", delimiter=",", names=True)
    errors = ("subspace_error", "value_error", "lstd_alone_error", "td_alone_error")
    for name in ("round", "contributors", "basis_movement", *errors):
        np.testing.assert_array_equal(result.rounds[name], table[name])
    for index, agent in enumerate(result.agents):
        saved = ValueFunction.load(folder / "agents" / f"site-{index}.npz")
        assert saved.weights.tobytes() == agent.weights.tobytes()
        assert [saved.value(state) for state in range(44)] == [agent.value(state) for state in range(44)]


def test_step_by_step_is_the_same_run() -> None:
    whole, fleet = small().run(), small()
    assert (fleet.rounds_done, fleet.is_over, len(fleet.result.rounds["round"])) == (0, False, 0)
    first = fleet.step()
    kept = bits(first)
    assert fleet.step(rounds=5).rounds["round"].tolist() == [0, 1, 2, 3, 4, 5]
    assert (fleet.rounds_done, fleet.is_over, first.message) == (6, False, "")
    assert bits(first) == kept, "a result stays as it is"
    assert bits(fleet.step(rounds=100)) == bits(whole)
    assert fleet.is_over
    assert fleet.result.message == whole.message == "all 12 rounds are done"
    assert bits(fleet.run()) == bits(fleet.step()) == bits(whole), "when it is over nothing follows"


def test_a_fleet_without_an_end_is_stepped() -> None:
    fleet = small(rounds=0)
    with pytest.raises(InvalidValueError, match="rounds is 0, so this run has no end"):
        fleet.run()
    with pytest.raises(InvalidValueError, match="rounds is 0; a step runs 1 or more"):
        fleet.step(0)
    assert len(fleet.step(30).rounds["round"]) == 30


def test_what_is_not_known_is_nan() -> None:
    result = small(Workload(make_site=toy.unknown_truth, name="unknown", rank=1)).run()
    assert np.isnan([result.value_error, result.gain_error, result.td_alone_error, result.subspace_error]).all()
    assert np.isnan(result.rounds["value_error"]).all()
    assert "; held-out error " in repr(result)
    assert np.isfinite([agent.gain for agent in result.agents]).all()


def test_shared_weights_are_those_of_posteriors_alone_or_in_groups() -> None:
    result, grouped = small().run(), small(groups=1).run()
    weights = result.shared_weights
    assert weights.shape == (3,)
    assert ((weights >= 0.0) & (weights <= 1.0)).all()
    assert result.shared_weight == np.median(weights)
    np.testing.assert_allclose(grouped.shared_weights, weights, rtol=1e-6)
    assert (result.rank_in_use, grouped.rank_in_use) == (1, 1)
    other = small(preset="paper").run()
    assert np.isnan(other.shared_weights).all()
    assert np.isnan(other.shared_weight)
    assert other.rank_in_use is None


def test_how_a_fleet_looks() -> None:
    fleet = small()
    assert repr(fleet) == "<Fleet: toy, 3 agents, 0 of 12 rounds done>"
    assert "0 of 12 rounds" in fleet._repr_html_()
    result = fleet.run()
    page = result._repr_html_()
    assert page.count("<tr>") == 4
    assert "<td>site-2</td><td>ring 2</td>" in page
    half = result.agents[2].gain_interval(coverage=0.95).upper - result.agents[2].mean_reward
    assert f"<td>{result.agents[2].mean_reward:.4g} ± {half:.2g}</td>" in page
    assert f"{result.value_error:.4g}" in repr(result)
    assert result._title == "toy, 3 agents, 12 rounds"
    named = Workload(make_site=toy.make_site, name="<b>&", rank=1)
    assert "&lt;b&gt;&amp;, 3 agents" in small(named).step()._repr_html_()
    assert "… and 5 more" in small(Workload(make_site=toy.make_site, rank=1), agents=25).step()._repr_html_()


def test_progress_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    small().run(progress=True)
    assert capsys.readouterr().err.splitlines()[-1].startswith("round 12 of 12, ")
    small().run(progress=False)
    small().run()
    assert capsys.readouterr() == ("", ""), "a pipe has no viewer"


def test_each_round_is_told() -> None:
    fleet, heard = small(), list[int]()
    fleet.on_round.append(lambda report: heard.append(report.closed_round))
    fleet.run()
    assert heard == list(range(12))


def test_an_interrupt_waits_for_the_round_and_the_fleet_goes_on() -> None:
    fleet = small()
    fleet.on_round.append(lambda report: os.kill(os.getpid(), signal.SIGINT) if report.closed_round == 4 else None)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fleet.run()
    assert fleet.rounds_done == 5
    assert signal.getsignal(signal.SIGINT) is before
    assert bits(fleet.run()) == bits(small().run())


def test_a_second_interrupt_breaks_off() -> None:
    fleet = small()

    def interrupt(_report: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    fleet.on_round.append(interrupt)
    with pytest.raises(KeyboardInterrupt):
        fleet.run()
    with pytest.raises(InvalidValueError, match="was aborted in the middle of a round"):
        fleet.run()


def test_a_fleet_in_a_thread_and_where_a_loop_runs() -> None:
    found: list[FleetResult] = []
    thread = threading.Thread(target=lambda: found.append(small().run()))
    thread.start()
    thread.join(SECONDS)

    async def notebook() -> FleetResult:
        return small().run()

    assert bits(found[0]) == bits(run(notebook()))


def test_a_site_that_breaks_leaves_and_the_others_go_on() -> None:
    result = small(Workload(make_site=toy.one_raises_later, name="toy", rank=1), steps_per_round=5).run()
    assert list(result.departures) == ["site-1"]
    assert "the pump is on fire" in result.departures["site-1"]
    assert result.rounds["contributors"].tolist() == [3] * 8 + [2] * 4
    assert [agent.agent_id for agent in result.agents] == ["site-0", "site-1", "site-2"]
    assert result.agents[1].steps == 40
    stayed = [agent.value_error for agent in result.agents if agent.index != 1]
    assert result.value_error == np.median(stayed)
    assert "1 left early" in repr(result)


def test_a_site_that_never_works_ends_the_fleet() -> None:
    fleet = small(Workload(make_site=toy.raises_at_once, name="toy", rank=1))
    with pytest.raises(WorkloadBehaviourError, match="the pump is on fire"):
        fleet.run()
    with pytest.raises(InvalidValueError, match="make a new one"):
        fleet.step()


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"agents": 11}, "agents is 11; workload 'toy' has 10 sites, so it must be 1 to 10"),
        ({"agents": 0}, "agents is 0; it must be 1 to"),
        ({"rank": 9}, "rank is 9; it must be 1 to feature_dim = 3"),
        ({"preset": "best"}, "preset is 'best'; it must be one of paper, practical, compact"),
        ({"aggregation": "mode"}, "aggregation is 'mode'; it must be one of mean, clipped"),
        ({"step_size": 0.1}, "there is no value 'step_size' of a run; there are "),
        ({"rank": "2"}, "rank is '2', of type str; it must be a whole number"),
        ({"trace_decay": None}, "trace_decay is None, of type NoneType; it must be a number"),
        ({"warm_up_rounds": True}, "warm_up_rounds is True, of type bool; it must be a whole number"),
        ({"row_scaled": 1}, "row_scaled is 1, of type int; it must be of type bool"),
        ({"aggregation": 3}, "aggregation is 3, of type int; it must be of type Aggregation"),
        ({"groups": 4}, "groups is 4; with 3 agents it must be 1 to 3"),
        ({"groups": 0}, "groups is 0; with 3 agents it must be 1 to 3"),
        ({"groups": 1, "warm_up_rounds": 2}, "warm_up_rounds is 2"),
    ],
)
def test_what_a_fleet_does_not_take(said: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidValueError, match=complaint):
        small(**said)


def test_there_is_no_such_workload() -> None:
    with pytest.raises(WorkloadError, match="there is no workload 'quues'"):
        Fleet("quues")


# Specifications ---------------------------------------------------------------------------------------------


def test_what_holds_where_nobody_says_otherwise() -> None:
    spec, queues = specify("queues"), load_workload("queues")
    assert (spec.workload, spec.agents, spec.rounds, spec.seed) == ("queues", 8, 300, 0)
    assert (spec.rank, spec.method.steps_per_round) == (queues.rank, queues.steps_per_round)
    assert (spec.feature_dim, spec.feature_fingerprint[:8]) == (43, "one-hot-")
    assert (specify(TOY).workload, specify(TOY).agents) == ("toy", 10), "all of its sites"


def test_constants_by_name() -> None:
    spec = specify(TOY, agents=4, preset="paper", rank=2, aggregation="trimmed", quorum=3, trace_decay=0.5)
    assert (spec.rank, spec.method.aggregation, spec.participation) == (
        2,
        Aggregation.TRIMMED,
        Participation.QUORUM,
    )
    assert spec.method.trace_decay == 0.5
    assert spec.method.head_update is paper(5).head_update
    numpys = specify(TOY, preset="compact", rank=np.int64(2), trace_decay=np.float64(0.5), reward_scaled=True)
    assert (type(numpys.rank), type(numpys.method.trace_decay)) == (int, float)
    assert specify(TOY, aggregation=Aggregation.CLIPPED).method.aggregation is Aggregation.CLIPPED


# What is written down for users -----------------------------------------------------------------------------


def test_the_page_runs_from_top_to_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    """Every block of Python in docs/python-api.md, in one namespace."""
    page, names = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8"), dict[str, Any]()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == page.count("```python") == 9
    for block in blocks:
        exec(compile(block, "docs/python-api.md", "exec"), names)
    said = capsys.readouterr().out
    assert "FinishCause.ROUNDS_REACHED" in said
    assert "<ValueFunction of site-7: d = 43, gain " in said


def test_the_example_for_notebooks(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "notebook.py"))
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("round  25: value error 0.")
    assert last.startswith("<ValueFunction of site-")


# Over the network -------------------------------------------------------------------------------------------


def test_a_coordinator_and_its_agents_are_awaited() -> None:
    async def notebook() -> tuple[str, list[str]]:
        spec = specify(TOY, agents=3, rounds=12, seed=1)
        async with Coordinator(spec) as coordinator:
            assert coordinator.status().stamp.round == 0
            agents = [Agent(TOY, index=index, coordinator=coordinator.address) for index in range(3)]
            await asyncio.gather(*(agent.run_async() for agent in agents))
            report = coordinator.status()
            assert report.finish_cause is not None
            assert coordinator.specification == spec
            alone = small().run()
            assert coordinator.basis.tobytes() == alone.basis.tobytes()
            for agent, other in zip(agents, alone.agents, strict=True):
                assert agent.values(range(4)).tobytes() == other.values(range(4)).tobytes()
                assert agent.value(2) == other.value(2)
                assert (agent.gain, agent.value_function.value_error) == (other.gain, other.value_error)
                assert agent.interval(1, 2) == other.interval(1, 2)
                assert agent.gain_interval() == other.gain_interval()
            return report.finish_cause.value, [agent.agent_id for agent in report.agents]

    assert run(notebook()) == ("rounds-reached", ["site-0", "site-1", "site-2"])


def test_blocking_where_a_loop_runs_says_to_await() -> None:
    """It may serve the other end, which would then wait for ever."""

    async def notebook() -> None:
        with pytest.raises(InvalidValueError, match=r"agent site-0 cannot block here.*await agent.run_async\(\)"):
            Agent(TOY, index=0).run()
        with pytest.raises(InvalidValueError, match=r"group-0..1 cannot block here.*await agent.run_async\(\)"):
            AgentGroup(TOY, [0, 1]).run()
        with pytest.raises(InvalidValueError, match=r"the coordinator cannot block here.*async with coordinator"):
            Coordinator(specify(TOY)).run()

    run(notebook())


@pytest.mark.parametrize("way", ["waited for", "waited for and minded", "left", "left with another error"])
def test_the_failure_of_an_agent_in_a_block_is_told_once(way: str) -> None:
    broken = Workload(make_site=toy.raises_at_once, name="toy", rank=1)

    async def program() -> None:
        async with Coordinator(specify(TOY, agents=1, rounds=3)) as coordinator:
            agent = Agent(broken, index=0, coordinator=coordinator.address)
            async with agent:
                if way == "waited for":
                    await agent.wait()
                elif way == "waited for and minded":
                    with pytest.raises(WorkloadBehaviourError, match="the pump is on fire"):
                        await agent.wait()
                else:
                    await until(coordinator.engine, lambda: coordinator.status().finish_cause is not None)
                    if way == "left with another error":
                        raise KeyError(way)

    if way == "waited for and minded":
        run(program())
    else:
        expected = KeyError if way == "left with another error" else WorkloadBehaviourError
        with pytest.raises(expected):
            run(program())


def test_an_agent_leaves_at_the_end_of_its_block() -> None:
    async def program() -> list[str]:
        async with Coordinator(specify(TOY, agents=1, rounds=0)) as coordinator:
            async with Agent(TOY, index=0, coordinator=coordinator.address) as agent:
                await until(coordinator.engine, lambda: coordinator.status().stamp.round > 2)
            assert agent.value_function.steps >= 15
            return [f"{gone.agent_id}: {gone.gone_cause}" for gone in coordinator.status().agents]

    assert run(program()) == ["site-0: it left: its program has finished with it"]


def test_blocking_in_threads_of_a_program() -> None:
    coordinator, listening = Coordinator(specify(TOY, agents=2, rounds=5)), threading.Event()
    ends: list[Any] = []

    async def hosted() -> None:
        async with coordinator:
            listening.set()
            ends.append(await coordinator.wait())

    threads = [threading.Thread(target=asyncio.run, args=(hosted(),))]
    threads[0].start()
    assert listening.wait(SECONDS)
    group = AgentGroup(TOY, [0, 1], coordinator=coordinator.address)
    assert group.run().message == "all 5 rounds are done"
    threads[0].join(SECONDS)
    assert [value.agent_id for value in group.value_functions] == ["site-0", "site-1"]
    assert group.value_functions[1].weights.tobytes() == group.weights[1].tobytes()
    assert len(ends) == 1


def test_an_agent_runs_twice() -> None:
    """In one run after the other; each `run` has an event loop of its own."""
    spec = specify(TOY, agents=1, rounds=3)

    async def twice() -> None:
        async with Coordinator(spec) as coordinator:
            address, agent = coordinator.address, Agent(TOY, index=0, coordinator=coordinator.address)
            ends, first = [await asyncio.to_thread(agent.run)], agent.weights
        async with Coordinator(spec, port=int(address.rpartition(":")[2])):
            ends.append(await asyncio.to_thread(agent.run))
        assert [(end.message, end.rounds) for end in ends] == [("all 3 rounds are done", 3)] * 2
        assert agent.weights.tobytes() == first.tobytes()

    run(twice())


def test_run_async_of_a_coordinator_ends_with_its_run() -> None:
    async def program() -> str:
        coordinator = Coordinator(specify(TOY, agents=1, rounds=0))
        running = asyncio.create_task(coordinator.run_async())
        changed = asyncio.Event()
        coordinator.engine.on_note.append(lambda _: changed.set())
        coordinator.stop("enough")
        end = await running
        assert changed.is_set()
        return str(end.message)

    assert run(program()) == "enough"
