"""The maker of a site closes it, whatever happens in between."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runs import States, announced, ring_site

from cospan.cli.settings import run_warnings
from cospan.cli.settings.run_specification import plan_again, plan_with_workload
from cospan.client.environment import workload_loader
from cospan.client.environment.ownership import close_site, close_sites, user_code
from cospan.client.environment.workload_loader import make_sites
from cospan.client.group import AgentGroup
from cospan.client.learning.group_blocks import GroupSites
from cospan.client.learning.run_config import specify
from cospan.client.workload import Site, Workload
from cospan.simulation import Fleet
from cospan.wire import errors
from cospan.wire.errors import CospanError, InvalidValueError, WorkloadBehaviourError
from cospan.wire.messages import Stamp, Welcome


class Licences:
    """One for each site: a second site fails while another holds its licence."""

    def __init__(self, at_step: Callable[[int, int], None] = lambda _index, _step: None) -> None:
        self.held: set[int] = set()
        self.made: list[int] = []
        self._at_step = at_step

    @property
    def workload(self) -> Workload:
        return Workload(make_site=self.make_site, name="licensed", rank=1, steps_per_round=5)

    def make_site(self, index: int, seed: int) -> Site:
        assert index not in self.held, f"the licence of site {index} is in use"
        self.held.add(index)
        self.made.append(index)
        site = ring_site(index, seed)
        env: Any = site.env
        inner, count = env.step, [0]

        def step(action: Any) -> Any:
            self._at_step(index, count[0])
            count[0] += 1
            return inner(action)

        env.step, env.close = step, lambda: self.held.remove(index)
        return site


def fails(_index: int, _step: int) -> None:
    raise RuntimeError("the pump is on fire")


def site_1_fails_later(index: int, step: int) -> None:
    if index == 1 and step == 12:
        fails(index, step)


def test_a_specification_holds_no_site() -> None:
    licences = Licences()
    specify(licences.workload, agents=3)
    with pytest.raises(InvalidValueError):
        specify(licences.workload, agents=3, rank=99)
    assert (licences.held, licences.made) == (set(), [0, 0])


def test_a_plan_closes_its_site_or_has_closed_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    licences = Licences()
    monkeypatch.setattr(
        "cospan.client.environment.workload_loader.load_workload", lambda _reference: licences.workload
    )
    arguments: dict[str, Any] = {"reference": "x:y", "spec_file": None, "rounds": 3}
    with pytest.raises(InvalidValueError):
        plan_with_workload({"rank": "99"}, None, **arguments)
    assert licences.held == set()
    plan_with_workload({}, None, **arguments).close()
    assert licences.held == set()
    with pytest.raises(InvalidValueError):
        plan_again(specify(licences.workload, agents=3), {"rank": "99"}, None)
    assert licences.held == set()


@pytest.mark.parametrize("groups", [None, 1])
def test_a_fleet_makes_each_site_once_and_closes_it_at_its_end(groups: int | None) -> None:
    licences = Licences()
    fleet = Fleet(licences.workload, agents=3, rounds=4, groups=groups)
    fleet.run()
    assert licences.held == set()
    assert licences.made == ([0, 1, 2] if groups is None else [0, 0, 1, 2])
    assert len(fleet.result.agents) == 3
    fleet.result.agents[1].value(0)  # what was learnt needs no environment


@pytest.mark.parametrize("groups", [None, 1])
def test_a_site_that_fails_is_closed_and_the_others_too(groups: int | None) -> None:
    licences = Licences(site_1_fails_later)
    fleet = Fleet(licences.workload, agents=3, rounds=6, groups=groups)
    result = fleet.step(4)
    assert licences.held == {0, 2}
    assert result.departures == {
        "site-1": "the environment or policy of site-1 raised RuntimeError in step 12: the pump is on fire"
    }
    assert [agent.agent_id for agent in result.agents] == ["site-0", "site-1", "site-2"]
    assert result.rounds["contributors"].tolist() == [3, 3, 2, 2]
    fleet.run()
    assert licences.held == set()


def test_a_fleet_that_cannot_begin_holds_nothing() -> None:
    licences = Licences(fails)
    with pytest.raises(WorkloadBehaviourError, match="the pump is on fire"):
        Fleet(licences.workload, agents=3, rounds=6).run()
    assert licences.held == set()
    broken = Licences()
    workload = replace(
        broken.workload, make_site=lambda index, seed: 1 / 0 if index == 2 else broken.make_site(index, seed)
    )
    for groups in (None, 1):
        with pytest.raises(WorkloadBehaviourError, match="failed to make site 2"):
            Fleet(workload, agents=3, groups=groups)
        assert broken.held == set()
    with pytest.raises(InvalidValueError):
        Fleet(broken.workload, agents=3, groups=9)
    assert broken.held == set()


@pytest.mark.parametrize(
    "failure",
    [
        errors.CoordinatorUnavailableError("user code may open channels too"),
        errors.RunFinishedError("so it says"),
        RuntimeError("the pump is on fire"),
        SystemExit(3),
    ],
)
def test_whatever_user_code_raises_is_a_failure_of_user_code(failure: BaseException) -> None:
    """An error of Cospan from there would be taken for the coordinator's, and the agent would try again."""

    def make_site(_index: int, _seed: int) -> Site:
        raise failure

    with pytest.raises(WorkloadBehaviourError, match=f"failed to make site 0: {type(failure).__name__}") as raised:
        workload_loader.make_site(Workload(make_site=make_site, name="w"), 0, 1)
    assert raised.value.__cause__ is failure


def test_ctrl_c_in_user_code_and_the_end_of_a_generator_pass() -> None:
    for passing in (KeyboardInterrupt, GeneratorExit):
        with pytest.raises(passing), user_code("a test"):
            raise passing
    named = WorkloadBehaviourError("a vector environment needs a policy")
    with pytest.raises(WorkloadBehaviourError) as raised, user_code("a test"):
        raise named
    assert raised.value is named


def test_a_value_error_of_a_workload_says_that_there_is_no_such_site() -> None:
    def make_site(index: int, _seed: int) -> Site:
        raise ValueError(f"{index} is beyond the fleet")

    with pytest.raises(errors.WorkloadError, match="workload 'w' has no site 7: 7 is beyond the fleet"):
        workload_loader.make_site(Workload(make_site=make_site, name="w"), 7, 1)


def test_sites_made_for_nothing_are_closed() -> None:
    licences = Licences()
    workload = replace(
        licences.workload, make_site=lambda index, seed: 1 / 0 if index == 19 else licences.make_site(index, seed)
    )
    for make in (make_sites, lambda *arguments: GroupSites.of(*arguments[:2], 4, arguments[2])):
        with pytest.raises(CospanError):
            make(workload, range(20), 1)
        assert licences.held == set()


def test_a_close_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    site = ring_site(0, 1)
    site.env.close = lambda: 1 / 0  # type: ignore[method-assign, assignment]
    close_site(replace(site, label="the pump"))
    close_sites([site])
    assert "the environment of the pump cannot be closed: ZeroDivisionError" in caplog.text


def test_the_check_of_features_draws_from_a_space_of_its_own() -> None:
    """A site that was inspected continues as one that was not."""
    site = ring_site(0, 1)
    before = site.env.observation_space.np_random.bit_generator.state
    run_warnings.of_features(specify(Workload(make_site=ring_site, name="r", rank=1)), site)
    assert site.env.observation_space.np_random.bit_generator.state == before


def test_features_of_unequal_length_are_named() -> None:
    def make_site(index: int, seed: int) -> Site:
        site = ring_site(index, seed)
        return replace(site, features=States(9)) if index == 2 else site

    with pytest.raises(
        WorkloadBehaviourError, match="the feature map of site 2 of workload 'w' is 'map-1' with length 9, and that"
    ):
        make_sites(Workload(make_site=make_site, name="w"), range(4), 1)


def test_a_group_closes_each_site_once(caplog: pytest.LogCaptureFixture) -> None:
    """Also those of members that it has dropped; where all chains start over, theirs are made again."""
    licences, spec = Licences(), specify(Licences().workload, agents=3)
    welcome = Welcome(Stamp("run", 1, 0, 0), "token", spec, spec.initial_basis(), first_round=0, started=True)
    group = AgentGroup(licences.workload, range(3))
    group._make_sites(spec)
    group._make_learner(welcome).drop({"site-1": "it had failed before its process was started again"})
    assert licences.held == {0, 2}
    whole = group._make_learner(welcome)
    assert licences.held == {0, 1, 2}
    whole.learn(0, *announced(spec))
    whole.drop({"site-2": "the pump is on fire"})
    group._close_sites()
    assert (licences.held, caplog.messages) == (set(), [])
