"""The layers of the settings, and the specification that follows from them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cospan.cli.settings.layers import Settings, load_settings, unknown_variables
from cospan.cli.settings.run_specification import plan_alone, plan_with_workload, preset_of
from cospan.core.method import PRESETS, Aggregation, HeadUpdate, Method, paper, practical
from cospan.wire.errors import CospanError, InvalidValueError, RunFileError
from cospan.wire.files.spec_file import to_toml


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cospan.toml and no COSPAN_ variable but the test's own."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"COSPAN_{name.upper()}", raising=False)


def test_flags_stand_above_the_environment_above_the_file_above_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cospan.toml").write_text('agents = 3\nrounds = 4\nseed = 5\nhead_radius = inf\npreset = "paper"\n')
    monkeypatch.setenv("COSPAN_ROUNDS", "40")
    monkeypatch.setenv("COSPAN_SEED", "50")
    monkeypatch.setenv("COSPAN_PRESET", "")
    found = load_settings({"seed": "500", "json": True}, None)
    assert (found.agents, found.rounds, found.seed) == (3, 40, 500)
    assert (found.preset, found.head_radius, found.progress_timeout_seconds) == ("paper", float("inf"), 60.0)
    assert found.rank is None


def test_an_engine_is_waited_for_longer() -> None:
    assert load_settings({"engine_patience": True}, None).progress_timeout_seconds == 600.0
    both = {"engine_patience": True, "progress_timeout_seconds": "90"}
    assert load_settings(both, None).progress_timeout_seconds == 90.0
    assert load_settings({"coordinator": "@run/address"}, None).coordinator == "@run/address"


def test_another_file_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "cospan.toml").write_text("agents = 3\n")
    (tmp_path / "mine.toml").write_text("rounds = 9\n")
    found = load_settings({}, tmp_path / "mine.toml")
    assert (found.agents, found.rounds) == (None, 9)


@pytest.mark.parametrize(
    ("flags", "environment", "says"),
    [
        ({"agents": "many"}, {}, "agents is 'many' in --agents; it must be a whole number, 1 to 1048576"),
        ({"head_step": "x"}, {}, "head_step is 'x' in --head-step; it must be a number above 0"),
        ({"port": "70000"}, {}, "port is '70000' in --port; it must be a whole number, 0 to 65535"),
        ({"coordinator": "here"}, {}, "coordinator is 'here' in --coordinator; it must be HOST:PORT"),
        ({"upstream": "@"}, {}, "upstream is '@' in --upstream; @ is followed by the name of a file"),
        (
            {"allowed_hosts": "a, b"},
            {},
            "allowed_hosts is 'a, b' in --allowed-hosts; it must be names or addresses",
        ),
        *(
            (
                {"dashboard_root_path": path},
                {},
                f"dashboard_root_path is {path!r} in --dashboard-root-path; it must be",
            )
            for path in ("fleet", "/fleet/", "/../fleet", "//fleet", "/fl eet")
        ),
        (
            {},
            {"COSPAN_RANK": "two"},
            "rank is 'two' in the environment variable COSPAN_RANK; it must be a whole",
        ),
        (
            {},
            {"cospan.toml": 'preset = "fast"'},
            "preset is 'fast' in cospan.toml; it must be paper, practical, compact or full-history",
        ),
        (
            {},
            {"cospan.toml": "agnets = 3"},
            "cospan.toml has agnets = 3, which is no setting; did you mean agents? allowed are feature_dim, rank",
        ),
        ({}, {"cospan.toml": "agents = "}, "cospan.toml is not TOML"),
    ],
)
def test_a_wrong_value_names_the_key_the_value_the_place_and_what_is_allowed(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        if name == "cospan.toml":
            (tmp_path / name).write_text(value)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(InvalidValueError) as failure:
        load_settings(flags, None)
    assert says in str(failure.value)


def test_settings_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("agents = 3\n", encoding="utf-8-sig")
    assert load_settings({}, tmp_path / "own.toml").agents == 3


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"x = '\xe4'", "cannot read .*: it is not UTF-8 text"),
        (b"x = 1\n" * 20_000, "cannot read .*: it has 120000 bytes, and at most 65536 are read"),
        (b"x" + b".x" * 30_000 + b" = 1", "is not TOML: it is nested too deeply"),
    ],
)
def test_settings_that_cannot_be_read(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_bytes(content)
    with pytest.raises(InvalidValueError, match=says):
        load_settings({}, tmp_path / "own.toml")


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=r"there is no file .*nowhere.toml"):
        load_settings({}, tmp_path / "nowhere.toml")


# Specifications ---------------------------------------------------------------------------------------------

ALONE = {"feature_dim": "7", "rank": "2"}


def alone(flags: Mapping[str, Any], spec_file: Path | None = None) -> Any:
    return plan_alone(
        {**(ALONE if spec_file is None else {}), **flags}, None, spec_file=spec_file, rounds=0
    ).specification


def test_the_defaults() -> None:
    spec = alone({})
    assert (spec.feature_dim, spec.rank, spec.agents, spec.rounds, spec.seed) == (7, 2, 8, 0, 0)
    assert spec.method == practical(20)
    assert preset_of(spec.method) == "practical"


def test_every_constant_of_the_method_can_be_overridden() -> None:
    said = {
        "steps_per_round": "3",
        "head_update": "end-of-round",
        "head_step": "0.5",
        "gain_step": "0.25",
        "head_radius": "inf",
        "basis_step": "0",
        "implicit_head_step": "false",
        "preconditioned": "false",
        "preconditioner_floor": "0.125",
        "decay_horizon": "0",
        "decay_power": "0.5",
        "trace_decay": "0.25",
        "forgetting": "1.5",
        "row_scaled": "true",
        "reward_scaled": "true",
        "explained_power": "2.5",
        "warm_up_rounds": "5",
        "aggregation": "clipped",
        "trimmed_share": "0.125",
        "clip_norm": "2.5",
        "largest_turn": "12.5",
        "first_turn": "45",
        "refresh_growth": "1.5",
        "refresh_sample": "500",
    }
    method = alone(said).method
    assert method == Method(
        3,
        HeadUpdate.END_OF_ROUND,
        0.5,
        0.25,
        float("inf"),
        0.0,
        False,
        False,
        0.125,
        0.0,
        0.5,
        0.25,
        1.5,
        True,
        True,
        2.5,
        5,
        Aggregation.CLIPPED,
        0.125,
        2.5,
        12.5,
        45.0,
        1.5,
        500,
    )
    assert preset_of(method) is None
    assert set(said) == set(Method.__dataclass_fields__)


def test_the_posteriors_of_many_agents_are_refreshed_in_fewer_rounds() -> None:
    """By default, and only with posteriors; the preset is the same one."""
    sizes = {"feature_dim": "4", "rank": "2"}
    assert alone({**sizes, "agents": "1000"}).method.refresh_growth == 0.0
    many = alone({**sizes, "agents": "1001"}).method
    assert (many.refresh_growth, many.refresh_sample) == (1.5, 1000)
    assert preset_of(many) == "practical"
    said = alone({**sizes, "agents": "1001", "refresh_growth": "1.15"}).method
    assert (said.refresh_growth, said.refresh_sample) == (1.15, 0)
    assert alone({**sizes, "agents": "1001", "refresh_sample": "0"}).method.refresh_sample == 0
    assert alone({**sizes, "agents": "1001", "refresh_sample": "500"}).method.refresh_sample == 500
    assert alone({**sizes, "agents": "1001", "preset": "paper"}).method.refresh_growth == 0.0
    assert alone({"agents": "1001", "feature_dim": "20", "rank": "3", "improve": "2"}).method.refresh_growth == 0.0


def test_a_preset_with_overrides() -> None:
    spec = alone({"preset": "paper", "steps_per_round": "4", "head_step": "0.2", "session_timeout_seconds": "1"})
    assert spec.method == replace(paper(4), head_step=0.2)
    assert spec.session_timeout_seconds == 1.0


def test_the_settings_know_every_preset() -> None:
    for name in PRESETS:
        assert load_settings({"preset": name}, None).preset == name


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"rank": "8"}, "rank is 8; it must be 1 to feature_dim = 7"),
        ({"rank": "0"}, "rank is 0"),
        ({"agents": "0"}, "agents is 0"),
        ({"head_step": "-1"}, "head_step is -1.0"),
        ({"warm_up_rounds": "1"}, "warm_up_rounds is 1; it must be 0, or 2 to"),
        ({"warm_up_rounds": "9", "rounds": "9"}, "it must be below the number of rounds 9"),
        ({"session_timeout_seconds": "0"}, "session_timeout_seconds is 0.0"),
    ],
)
def test_values_out_of_range(flags: Mapping[str, str], says: str) -> None:
    with pytest.raises(InvalidValueError) as failure:
        alone(flags)
    assert says in str(failure.value)


def test_a_coordinator_must_know_d_and_r() -> None:
    with pytest.raises(InvalidValueError, match="--feature-dim"):
        plan_alone({"rank": "2"}, None, spec_file=None, rounds=0)


def test_of_a_specification_file_only_flags_override_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = alone({"rounds": "12", "head_step": "0.75", "preset": "paper", "agents": "3"})
    file = tmp_path / "spec.toml"
    file.write_text(to_toml(written))
    monkeypatch.setenv("COSPAN_ROUNDS", "99")
    monkeypatch.setenv("COSPAN_FEATURE_DIM", "99")
    (tmp_path / "cospan.toml").write_text('preset = "practical"\nhead_step = 9\n')
    assert alone({}, file) == written
    assert alone({"agents": "5"}, file) == replace(written, agents=5)
    assert alone({"preset": "practical"}, file).method == practical(20)


def test_a_run_needs_a_workload_or_the_file_of_one() -> None:
    with pytest.raises(InvalidValueError, match="no workload is named"):
        plan_with_workload({}, None, reference=None, spec_file=None, rounds=1)
    with pytest.raises(RunFileError, match="there is no file"):
        plan_with_workload({}, None, reference=None, spec_file=Path("spec.toml"), rounds=1)


def test_a_workload_fills_in_what_it_knows(tmp_path: Path) -> None:
    plan = plan_with_workload({"seed": "3"}, None, reference="queues", spec_file=None, rounds=300)
    spec = plan.specification
    assert (spec.workload, spec.feature_dim, spec.rank, spec.rounds, spec.seed) == ("queues", 43, 2, 300, 3)
    assert spec.feature_fingerprint
    file = tmp_path / "spec.toml"
    file.write_text(to_toml(spec))
    again = plan_with_workload({}, None, reference=None, spec_file=file, rounds=1)
    assert again.specification == spec

    with pytest.raises(InvalidValueError, match="is of workload 'queues', and the command names 'synthetic'"):
        plan_with_workload({}, None, reference="synthetic", spec_file=file, rounds=1)
    file.write_text(to_toml(replace(spec, feature_fingerprint="another")))
    with pytest.raises(CospanError, match="the feature map 'another'"):
        plan_with_workload({}, None, reference="queues", spec_file=file, rounds=1)


def test_a_variable_that_is_no_setting_is_named_with_the_one_that_is_like_it() -> None:
    environment = {
        "COSPAN_ROUND": "5",
        "COSPAN_WORKLOAD": "queues",
        "COSPAN_SEED": "1",
        "COSPAN_XYZZY": "",
        "COSPAN_IDLE_SECONDS": "5",
        "PATH": "/",
    }
    assert unknown_variables(environment) == [
        "the environment variable COSPAN_IDLE_SECONDS is no setting and changes nothing",  # no deadline
        "the environment variable COSPAN_ROUND is no setting and changes nothing; did you mean COSPAN_ROUNDS?",
        "the environment variable COSPAN_XYZZY is no setting and changes nothing",
    ]


def test_a_key_that_is_no_setting_is_named_with_the_one_that_is_like_it(tmp_path: Path) -> None:
    path = tmp_path / "cospan.toml"
    path.write_text("round = 5\n")
    with pytest.raises(InvalidValueError, match=r"round = 5, which is no setting; did you mean rounds\? allowed"):
        load_settings({}, path)
