"""How many files a process may have open, and how many agents that is enough for."""

import resource

import pytest

from cospan.cli.processes.agent_argv import check_open_files
from cospan.client.placement import Host
from cospan.wire.errors import InvalidValueError
from cospan.wire.files.descriptor_limit import raise_file_limit


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The limits of this process: the newest stand last."""
    found = [(40, 4096)]

    def change(_: int, pair: tuple[int, int]) -> None:
        if pair[1] == resource.RLIM_INFINITY:
            raise ValueError("the system has a limit of its own")
        found.append(pair)

    monkeypatch.setattr(resource, "getrlimit", lambda _: found[-1])
    monkeypatch.setattr(resource, "setrlimit", change)
    return found


def hosts(count: int) -> list[Host]:
    return [Host(f"site-{index}", (index,), is_group=False) for index in range(count)]


def test_the_soft_limit_is_raised_to_the_hard_one(limits: list[tuple[int, int]]) -> None:
    assert raise_file_limit() == 4096
    assert limits[-1] == (4096, 4096)
    limits.append((40, resource.RLIM_INFINITY))
    assert raise_file_limit() == 40, "a system may say infinity and refuse it"
    limits.append((resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert raise_file_limit() is None


def test_a_run_says_how_many_agents_fit(limits: list[tuple[int, int]]) -> None:
    limits.append((147, 147))
    check_open_files(hosts(12), 12, raise_file_limit())
    limits.append((146, 146))
    with pytest.raises(InvalidValueError) as refusal:
        check_open_files(hosts(12), 12, raise_file_limit())
    assert str(refusal.value) == (
        "a process may have 146 files open here, enough for 11 agent processes, and the run has 12: raise the "
        "limit (ulimit -Hn), choose fewer agents, or let each process host several (--processes)"
    )
    limits.append((40, 40))
    with pytest.raises(InvalidValueError, match=r"for 0 agent processes, .*: raise the limit \(ulimit -Hn\)$"):
        check_open_files(hosts(1), 1, raise_file_limit())


def test_many_processes_need_many_pipes(limits: list[tuple[int, int]]) -> None:
    limits.append((1024, 1024))
    check_open_files(hosts(329), 329, raise_file_limit())
    with pytest.raises(InvalidValueError, match="enough for 329 agent processes, and the run has 330"):
        check_open_files(hosts(330), 330, raise_file_limit())
    check_open_files(hosts(5000), 5000, None)
