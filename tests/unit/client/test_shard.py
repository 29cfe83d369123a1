"""The sites of a shard, from a number or from what an engine sets."""

import pytest

from cospan.client.shard import sites_of_shard
from cospan.wire.errors import InvalidValueError


def sites(shard: str, agents: int = 20, host: str = "laptop", **environment: str) -> tuple[int, int]:
    found = sites_of_shard(shard, agents, environment=environment, host_name=lambda: host)
    return found.start, found.stop


@pytest.mark.parametrize(("agents", "number"), [(20, 8), (1000, 7), (8, 8), (1, 1), (65_537, 2)])
def test_the_shards_divide_the_sites_evenly(agents: int, number: int) -> None:
    shards = [sites_of_shard(f"{k}/{number}", agents, environment={}) for k in range(number)]
    assert [site for shard in shards for site in shard] == list(range(agents))
    sizes = {len(shard) for shard in shards}
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("shard", "host", "environment", "part"),
    [
        ("3/4", "laptop", {}, 3),
        (" 3 / 4 ", "laptop", {}, 3),
        ("JOB_COMPLETION_INDEX/4", "laptop", {"JOB_COMPLETION_INDEX": "0"}, 0),
        ("SLURM_ARRAY_TASK_ID/4", "laptop", {"SLURM_ARRAY_TASK_ID": "2"}, 2),
        ("SLURM_ARRAY_TASK_ID/4", "laptop", {"SLURM_ARRAY_TASK_ID": "12", "SLURM_ARRAY_TASK_MIN": "10"}, 2),
        ("SWARM_TASK_SLOT/4", "laptop", {"SWARM_TASK_SLOT": "4"}, 3),
        ("hostname/4", "fleet-agents-2", {"JOB_COMPLETION_INDEX": "1"}, 2),
        ("hostname/4", "fleet-agents-2.agents.default.svc.cluster.local", {}, 2),
        ("auto/4", "pod-3", {"SLURM_ARRAY_TASK_ID": "2", "JOB_COMPLETION_INDEX": "1"}, 1),
        ("auto/4", "pod-3", {"SLURM_ARRAY_TASK_ID": "2"}, 2),
        ("auto/4", "pod-3", {"SWARM_TASK_SLOT": "1"}, 0),
        ("auto/4", "pod-3", {}, 3),
    ],
)
def test_the_index_is_a_number_or_what_the_engine_says(
    shard: str, host: str, environment: dict[str, str], part: int
) -> None:
    assert sites(shard, host=host, **environment) == (5 * part, 5 * part + 5)


@pytest.mark.parametrize(
    ("shard", "agents", "environment", "says"),
    [
        ("3", 20, {}, "shard is '3'; it must be K/N with K from 0 on, as 3/8, JOB_COMPLETION_INDEX/8 or auto/8"),
        ("-1/4", 20, {}, "it must be K/N"),
        ("1/0", 20, {}, "the number of shards must be 1 or more"),
        ("4/4", 20, {}, "shard is '4/4', and of 4 shards the first is 0/4 and the last 3/4"),
        ("auto/2", 20, {"JOB_COMPLETION_INDEX": "2"}, "'auto/2' and JOB_COMPLETION_INDEX is '2', and of 2 shards"),
        ("SWARM_TASK_SLOT/2", 20, {"SWARM_TASK_SLOT": "0"}, "SWARM_TASK_SLOT is '0', and of 2 shards the first"),
        ("POD/4", 20, {}, "shard names 'POD', which is no index; it can be a number from 0 on, auto, hostname"),
        ("JOB_COMPLETION_INDEX/4", 20, {}, "JOB_COMPLETION_INDEX, from which the shard would follow, is not set"),
        ("SLURM_ARRAY_TASK_ID/4", 20, {"SLURM_ARRAY_TASK_ID": "x"}, "would follow, is 'x'; the engine sets it"),
        ("hostname/4", 20, {}, "the host's name 'laptop' does not end in a number"),
        ("1/4", 2, {}, None),
        ("0/4", 2, {}, "shard 0/4 of 2 agents has no site; use at most 2 shards"),
        ("0/1", 70_000, {}, "a process hosts at most 65536; use 2 shards or more"),
    ],
)
def test_what_is_wrong_is_said_with_the_remedy(
    shard: str, agents: int, environment: dict[str, str], says: str | None
) -> None:
    if says is None:
        assert sites(shard, agents, **environment) == (0, 1)
        return
    with pytest.raises(InvalidValueError) as failure:
        sites(shard, agents, **environment)
    assert says in str(failure.value)
