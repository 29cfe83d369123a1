"""The options that name logs: what goes together, and the mapping that flags come to."""

from pathlib import Path

import pytest

from cospan.cli.settings.log_options import columns_of, mapping_kept, workload_or_log, workload_or_logs
from cospan.client.environment.workload_loader import load_workload
from cospan.client.logs.guess import GivenNames
from cospan.wire.errors import InvalidValueError

MAPPING = Path("fleet.toml")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    rows = "".join(f"{row},{row * 7 % 10},{row % 3}\n" for row in range(60))
    for site in ("north", "south"):
        (tmp_path / f"logs/{site}.csv").write_text(f"step,level,cost\n{rows}", encoding="utf-8")


def test_columns_come_with_logs_and_without_a_mapping() -> None:
    assert columns_of("logs", None, "a, b", "-cost", None) == GivenNames(("a", "b"), "-cost", None)
    assert columns_of("logs", None, None, None, None) == GivenNames()
    assert columns_of("logs", MAPPING, None, None, None) is None
    assert columns_of(None, None, None, None, None) is None
    with pytest.raises(InvalidValueError, match=r"--reward is said without a mapping, and fleet\.toml is one"):
        columns_of("logs", MAPPING, None, "-cost", None)
    with pytest.raises(InvalidValueError, match="--time is of logs; name them with --logs"):
        columns_of(None, None, None, None, "at")


def test_the_mapping_of_flags_is_shown_and_kept_under_a_name_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    kept = mapping_kept("logs", GivenNames(reward="-cost"), None, quiet=False)
    assert kept.parent == Path("runs")
    shown = [line.removeprefix("  ") for line in capsys.readouterr().err.splitlines()[1:]]
    assert shown == kept.read_text(encoding="utf-8").splitlines()
    assert mapping_kept("logs", GivenNames(reward="-cost"), None, quiet=True) == kept
    assert not capsys.readouterr().err
    assert mapping_kept("logs", GivenNames(reward="cost"), None, quiet=True) != kept
    for reference in (workload_or_logs(None, "logs", kept, follow=False), f"logs:{kept}"):
        assert reference is not None
        assert load_workload(reference).max_agents == 2, "its data are beside it"
    assert mapping_kept("logs", GivenNames(), Path("there/run"), quiet=True).parent == Path("there")


def test_a_group_has_the_logs_of_all_sites() -> None:
    assert workload_or_log(None, "logs/north.csv", MAPPING, follow=False) == "log:fleet.toml:logs/north.csv"
    assert workload_or_log(None, "logs", MAPPING, follow=False, group=True) == "logs:fleet.toml:logs"
    assert workload_or_log(None, None, MAPPING, follow=False, group=True) == "logs:fleet.toml"
    with pytest.raises(InvalidValueError, match="name that of this site with --log"):
        workload_or_log(None, None, MAPPING, follow=False)
