"""What is deployed: checked options, and the command lines that follow."""

from pathlib import Path
from typing import Any

import pytest

from cospan.cli.deploy.plan import Plan, planned
from cospan.wire.errors import InvalidValueError


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan(workload: str = "queues", given: dict[str, Any] | None = None, **changes: Any) -> Plan:
    values = {"groups": None, "name": "fleet", "image": "cospan:1", "program": "/bin/cospan", "tls": False}
    return planned(workload, {"agents": "20"} if given is None else given, None, **(values | changes))


def test_settings_of_every_kind_become_options() -> None:
    given = {"agents": "20", "rounds": "0", "quorum": "0.8", "preset": "paper", "row_scaled": "true", "seed": "3"}
    made = plan("my_fleet.plants:plants", given | {"aggregation": "trimmed", "round_timeout_seconds": "90"})
    assert made.coordinator(host="0.0.0.0") == [
        "coordinator",
        "--workload=my_fleet.plants:plants",
        "--agents=20",
        "--rounds=0",
        "--round-timeout-seconds=90",
        "--start-seconds=600",
        "--seed=3",
        "--quorum=0.8",
        "--row-scaled=true",
        "--aggregation=trimmed",
        "--preset=paper",
        "--host=0.0.0.0",
        "--insecure",
        "--runs-folder=/var/lib/cospan",
        "--once",
    ]
    assert "--insecure" not in plan(tls=True).coordinator(host="0.0.0.0")
    assert plan(groups=4).agent(index="hostname", coordinator="c:1")[3] == "--shard=hostname/4"


def test_secure_sums_are_a_flag_which_the_coordinator_takes_without_a_value() -> None:
    chosen = plan(given={"agents": "20", "secure_sums": "true", "min_cohort": "4"}).coordinator(host="0.0.0.0")
    assert {"--secure-sums", "--min-cohort=4"} < set(chosen)
    assert "--no-secure-sums" in plan(given={"agents": "20", "secure_sums": "false"}).coordinator(host="0.0.0.0")


@pytest.mark.parametrize(("agents", "groups"), [("1", 1), ("5", 5), ("100", 8), ("1000000", 16)])
def test_groups_unless_they_are_said(agents: str, groups: int) -> None:
    assert plan(given={"agents": agents}).groups == groups


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"given": {}}, "agents is not set; say how many agents the fleet has with --agents"),
        ({"given": {"agents": "none"}}, "agents is 'none' in --agents; it must be a whole number"),
        ({"workload": "quues"}, "workload is 'quues'; it must be synthetic, synthetic-common-reward, queues"),
        ({"workload": "a;b:c"}, "workload is 'a;b:c'; it must be"),
        ({"name": "Fleet_1"}, "--name is 'Fleet_1'; it must be 1 to 40 lower-case letters"),
        ({"image": "cospan 1"}, "--image is 'cospan 1'; it must be the name of an image"),
        ({"program": "cospan"}, "--program is 'cospan'; it must be the absolute path of cospan"),
        ({"groups": 21}, "groups is 21, and there are 20 agents; it must be 1 to 20"),
        ({"groups": 0}, "it must be 1 to 20"),
        (
            {"given": {"agents": "200000"}, "groups": 2},
            "at most 65536 of the 200000 agents; it must be 4",
        ),
        ({"given": {"agents": "0"}}, "agents is 0; it must be 1 to 1048576"),
        ({"given": {"agents": "2", "rounds": "-1"}}, "rounds is -1; it must be 0 to 2^63"),
        ({"given": {"agents": "2", "rank": "0"}}, "rank is 0; it must be 1 to feature_dim"),
        (
            {"given": {"agents": "2", "steps_per_round": "0", "gain_step": "2"}},
            "steps_per_round is 0; it must be 1 to 2^32 − 1; gain_step is 2.0; it must be above 0, at most 1",
        ),
        (
            {"given": {"agents": "20", "secure_sums": "true"}, "groups": 2},
            "the fleet has 2 groups, and of fewer than min_cohort = 3 processes no secure sum is formed",
        ),
        (
            {"given": {"agents": "20", "secure_sums": "true", "min_cohort": "9"}},
            "the fleet has 8 groups, and of fewer than min_cohort = 9",
        ),
        ({"given": {"agents": "20", "min_cohort": "4"}}, "min_cohort is 4 without secure sums; say --secure-sums"),
        (
            {"given": {"agents": "20", "secure_sums": "true", "quorum": "0.8"}},
            "quorum is 0.8; with secure sums participation must be all",
        ),
        ({"given": {"agents": "2", "coordinator": "here"}}, "coordinator is 'here' in --coordinator"),
    ],
)
def test_what_is_wrong_is_said_with_the_remedy(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidValueError) as failure:
        plan(**changes)
    assert says in str(failure.value)


def test_groups_of_an_engine_have_no_differential_privacy() -> None:
    with pytest.raises(InvalidValueError, match="the processes that an engine starts are groups"):
        plan(given={"agents": "20", "dp": "epsilon=8,delta=1e-5"})
    assert plan(given={"agents": "20", "dp": "off"}).settings == plan().settings
