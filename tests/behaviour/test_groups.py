"""Groups of agents over real gRPC on the loopback: whole runs, files, certificates, faults, refusals."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from behaviour.bridge import Bridge
from behaviour.certificates import Certificates
from runs import RINGS, run, specification, until

from cospan.client.agent import Agent, AgentEnd, ClientSettings
from cospan.client.files.group_file import load_group
from cospan.client.files.result_file import load_result
from cospan.client.group import AgentGroup, indices_of
from cospan.core.method import Aggregation, compact, full_history, paper, practical
from cospan.core.specification import RunSpecification
from cospan.server.coordinator import Coordinator
from cospan.wire import errors
from cospan.wire.security.tls import TlsFiles

METHODS = {
    "paper": paper(3),
    "practical": practical(3),
    "full history": full_history(3),
    "compact": compact(3),
    "geometric median": replace(practical(3), aggregation=Aggregation.GEOMETRIC_MEDIAN),
}


def group_of(
    *indices: int, coordinator: str = "127.0.0.1:1", tls: TlsFiles | None = None, **options: Any
) -> AgentGroup:
    return AgentGroup(RINGS, indices, coordinator=coordinator, tls=tls, settings=ClientSettings(**options))


async def ends(*members: Agent | AgentGroup) -> list[AgentEnd]:
    return await asyncio.gather(*(member.run_async() for member in members))


async def played(spec: RunSpecification, *parts: tuple[int, ...]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A run with a group for each part, or with an agent of its own for each site: the last basis, all weights."""
    async with Coordinator(spec) as coordinator:
        where = coordinator.address
        groups = [group_of(*part, coordinator=where) for part in parts]
        agents = [] if parts else [Agent(RINGS, index=index, coordinator=where) for index in range(spec.agents)]
        assert {end.message for end in await ends(*groups, *agents)} == {f"all {spec.rounds} rounds are done"}
        reports = coordinator.engine.history.recent(99)
        assert [report.contributors for report in reports] == [spec.agents] * spec.rounds
        weights = {agent.agent_id: agent.weights for agent in agents}
        for group in groups:
            weights |= dict(zip(group.agent_ids, group.weights, strict=True))
        return coordinator.engine.state.basis, weights


@pytest.mark.parametrize("name", ["paper", "practical", "full history", "compact"])
def test_groups_come_to_what_single_agents_come_to(name: str) -> None:
    """To rounding, however they are parted, in the order of their names (site-10 before site-2) or not."""
    spec = specification(METHODS[name], agents=11, rounds=6)
    basis, weights = run(played(spec))
    for parts in [((0, 1, 2, 3, 4, 5), (6, 7, 8, 9, 10)), ((1, 10), (0, 2, 3, 4, 5, 6, 7, 8), (9,))]:
        found, learnt = run(played(spec, *parts))
        np.testing.assert_allclose(found, basis, rtol=0, atol=1e-9)
        assert learnt.keys() == weights.keys()
        for agent, vector in weights.items():
            np.testing.assert_allclose(learnt[agent], vector, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_the_same_groups_give_the_same_bits(name: str) -> None:
    spec = specification(METHODS[name], agents=6, rounds=5)
    first, second = (run(played(spec, (0, 1, 2), (3, 4, 5))) for _ in range(2))
    assert first[0].tobytes() == second[0].tobytes()
    assert {key: value.tobytes() for key, value in first[1].items()} == {
        key: value.tobytes() for key, value in second[1].items()
    }


def test_a_group_and_single_agents_take_part_in_one_run() -> None:
    async def mixed() -> None:
        async with Coordinator(specification(practical(3), agents=4, rounds=5)) as coordinator:
            where = coordinator.address
            group = group_of(0, 1, 3, coordinator=where)
            single = Agent(RINGS, index=2, coordinator=where)
            assert await ends(group, single) == [AgentEnd("all 5 rounds are done", 5)] * 2
            assert coordinator.engine.state.history.rounds_counted == {f"site-{index}": 5 for index in range(4)}

    run(mixed())


# Files ------------------------------------------------------------------------------------------------------------


def test_a_group_leaves_a_file_for_all_and_one_for_each(tmp_path: Path) -> None:
    async def whole() -> AgentGroup:
        async with Coordinator(specification(practical(3), agents=3, rounds=4)) as coordinator:
            group = group_of(0, 1, 2, coordinator=coordinator.address, state_file=tmp_path)
            await group.run_async()
            return group

    group = run(whole())
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["group-0..2.npz", "site-0.npz", "site-1.npz", "site-2.npz"]
    assert group.state_path == tmp_path / "group-0..2.npz"
    together = load_group(group.state_path)
    assert together.array("agent_ids").tolist() == list(group.agent_ids)
    for number, agent in enumerate(group.agent_ids):
        own = load_result(tmp_path / f"{agent}.npz")
        np.testing.assert_array_equal(own.array("weights"), group.weights[number])
        np.testing.assert_array_equal(together.array("weights")[number], group.weights[number])
        assert own.number("gain_count") == 4


def test_a_group_that_is_started_again_goes_on_from_its_file(tmp_path: Path) -> None:
    notes: list[str] = []

    async def learning_once(address: str, rounds: int) -> AgentGroup:
        group = group_of(0, 1, coordinator=address, state_file=tmp_path, checkpoint_seconds=0.0)
        group.on_note.append(lambda _, note: notes.append(note))
        reached, loop = asyncio.Event(), asyncio.get_running_loop()
        group.on_round.append(
            lambda group, _: group._learnt().rounds >= rounds and loop.call_soon_threadsafe(reached.set)
        )
        async with group:
            await reached.wait()
        return group

    async def twice() -> None:
        async with (
            Coordinator(specification(practical(3), agents=2, rounds=0)) as coordinator,
            Agent(RINGS, index=2, coordinator=coordinator.address),
        ):
            first = await learning_once(coordinator.address, 3)
            second = await learning_once(coordinator.address, first._learnt().rounds + 3)
            assert second._learnt().rounds >= first._learnt().rounds + 3
            coordinator.stop("enough")

    run(twice())
    assert len(notes) == 2
    assert "comes to other bits" in notes[1], "its chains cannot go on, and this coordinator keeps no bases"
    assert notes[0].startswith(f"continues from {tmp_path / 'group-0..1.npz'}, after ")


def test_a_groups_file_of_another_run_is_moved_aside_and_refused_by_name(tmp_path: Path) -> None:
    async def two_runs() -> None:
        for _ in range(2):
            async with Coordinator(specification(agents=2, rounds=2)) as coordinator:
                await group_of(0, 1, coordinator=coordinator.address, state_file=tmp_path).run_async()
        path = tmp_path / "group-0..1.npz"
        async with Coordinator(specification(agents=2, rounds=2)) as coordinator:
            group = group_of(0, 1, coordinator=coordinator.address, resume_from=path)
            with pytest.raises(errors.RunFileError, match="was saved in another run"):
                await group.run_async()

    run(two_runs())
    assert len(list(tmp_path.glob("group-0..1.*.npz"))) == 1


def test_no_folder_is_refused_before_anything_is_connected(tmp_path: Path) -> None:
    with pytest.raises(errors.RunFileError, match="a group writes a file for each agent, so name a folder"):
        group_of(0, 1, state_file=tmp_path / "a.npz")


# Trust and faults -------------------------------------------------------------------------------------------------


@pytest.fixture
def certs(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "fleet")


def test_a_group_shows_one_certificate_for_all_of_its_agents(certs: Certificates) -> None:
    async def whole() -> None:
        async with Coordinator(specification(agents=3, rounds=3), tls=certs.coordinator()) as coordinator:
            where = coordinator.address
            narrow = group_of(0, 1, 2, coordinator=where, tls=certs.issue("narrow", "cospan:agents:site-0..1"))
            with pytest.raises(errors.IdentityMismatchError, match="site-2"):
                await narrow.run_async()
            group = group_of(0, 1, 2, coordinator=where, tls=certs.issue("group", "cospan:agents:site-0..2"))
            assert await group.run_async() == AgentEnd("all 3 rounds are done", 3)

    run(whole())


def test_a_group_whose_stream_breaks_comes_back_and_counts_once() -> None:
    async def broken() -> None:
        async with (
            Coordinator(specification(practical(3), agents=5, rounds=30)) as coordinator,
            Bridge(coordinator.address) as bridge,
        ):
            group = group_of(0, 1, 2, 10, 11, coordinator=bridge.address)
            running = asyncio.create_task(group.run_async())
            await until(coordinator.engine, lambda: coordinator.engine.state.round >= 5)
            bridge.drop()
            assert await running == AgentEnd("all 30 rounds are done", 30)
            assert {report.contributors for report in coordinator.engine.history.recent(99)} == {5}
            assert coordinator.engine.state.members.departures == {}

    run(broken())


def test_a_group_stands_and_falls_together() -> None:
    """Where the workload of one of its agents breaks, all of them leave, and the others go on."""
    broken = replace(RINGS, make_site=lambda index, seed: 1 / 0 if index == 2 else RINGS.make_site(index, seed))

    async def failed() -> None:
        async with Coordinator(specification(agents=1, rounds=3)) as coordinator:
            group = AgentGroup(broken, (1, 2, 3), coordinator=coordinator.address)
            with pytest.raises(errors.WorkloadBehaviourError, match="failed to make site 2"):
                await group.run_async()
            single = Agent(RINGS, index=0, coordinator=coordinator.address)
            assert await single.run_async() == AgentEnd("all 3 rounds are done", 3)

    run(failed())


def test_a_warm_up_is_refused_before_the_group_joins() -> None:
    spec = specification(replace(full_history(3), warm_up_rounds=2), agents=2)

    async def refused() -> None:
        async with Coordinator(spec) as coordinator:
            with pytest.raises(
                errors.InvalidValueError, match="warm_up_rounds is 2; a warm-up's estimates are each"
            ):
                await group_of(0, 1, coordinator=coordinator.address).run_async()
            assert not coordinator.engine.state.members.hosts

    run(refused())


# Names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "indices"),
    [("0-3", (0, 1, 2, 3)), ("5", (5,)), (" 2 - 3 , 0-0", (0, 2, 3)), ("7-9,1-2", (1, 2, 7, 8, 9))],
)
def test_ranges_of_sites(text: str, indices: tuple[int, ...]) -> None:
    assert indices_of(text) == indices


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "'' in it is no range of sites; write it as 0-99"),
        ("0-", "'0-' in it is no range of sites"),
        ("0-9,x", "'x' in it is no range of sites"),
        ("9-0", "'9-0' in it is no range of sites"),
        ("-3", "'-3' in it is no range of sites"),
        ("0-5,5-7", "names site 5 twice"),
        ("0-999999999", "a group of 1000000000 agents is too large; it must be 1 to 65536"),
        ("0-40000,50000-90000", "a group of 80002 agents is too large"),
    ],
)
def test_a_wrong_range_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(errors.InvalidValueError, match=sentence):
        indices_of(text)


@pytest.mark.parametrize(("indices", "text"), [((), "has no agents"), ((2, 1), "in ascending order")])
def test_sites_that_are_no_group(indices: tuple[int, ...], text: str) -> None:
    with pytest.raises(errors.InvalidValueError, match=text):
        AgentGroup(RINGS, indices)


def test_a_group_that_should_share_td_errors_is_refused() -> None:
    with pytest.raises(errors.InvalidValueError, match="share_td_error is for single agents"):
        AgentGroup(RINGS, (0, 1), settings=ClientSettings(share_td_error=True))


def test_groups_of_other_agents_have_other_names() -> None:
    names = {AgentGroup(RINGS, indices).name for indices in ((0, 1, 2, 5), (0, 1, 3, 5), (0, 1, 4, 5), range(6))}
    assert len(names) == 4
    assert "group-0..5" in names
