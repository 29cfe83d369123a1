"""From settings and a workload to a specification: what follows from logs."""

from pathlib import Path

from cospan.cli.settings.run_specification import RunPlan, plan_again, plan_with_workload


def test_the_rounds_of_logs_follow_from_their_rows_and_a_resumed_run_keeps_its_own(tmp_path: Path) -> None:
    rows = "".join(f"{row % 10},{row % 7}\n" for row in range(61))
    (tmp_path / "log.csv").write_text(f"x,r\n{rows}", encoding="utf-8")
    (tmp_path / "fleet.toml").write_text(
        '[log]\nreward = "r"\n[features.x]\nkind = "numeric"\nrange = [0, 9]\n', encoding="utf-8"
    )
    reference = f"logs:{tmp_path}/fleet.toml:{tmp_path}/log.csv"

    def planned(**flags: str) -> RunPlan:
        return plan_with_workload(flags, None, reference=reference, spec_file=None, rounds=300)

    assert planned(steps_per_round="10").specification.rounds == 6
    asked = planned(steps_per_round="10", rounds="50").specification
    assert asked.rounds == 50
    assert plan_again(asked, {}, None).specification == asked
