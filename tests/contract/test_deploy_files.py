"""The files of `cospan deploy`: as the engines read them, and as they are kept in `deploy`."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from behaviour.command import in_this_process
from runs import SECONDS

ROOT = Path(__file__).resolve().parents[2]
STACK = ("swarm", "microgrids", "--agents", "25", "--groups", "5")
ENGINES = ("kubernetes", "swarm", "compose", "slurm", "systemd")


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(*arguments: str) -> dict[str, str]:
    """The files of a command, by path."""
    assert in_this_process("deploy", *arguments, "--output", "made") == 0
    return {str(file.relative_to("made")): file.read_text() for file in Path("made").rglob("*") if file.is_file()}


@pytest.mark.parametrize(("options", "name"), [((), "stack.yml"), (("--tls",), "stack.tls.yml")])
def test_the_stacks_that_are_kept_are_what_the_command_makes(options: tuple[str, ...], name: str) -> None:
    assert made(*STACK, *options)["stack.yml"] == (ROOT / "deploy" / "swarm" / name).read_text(), (
        f"make it again: cospan deploy {' '.join((*STACK, *options))} --output FOLDER"
    )


def test_the_chart_is_the_one_in_deploy() -> None:
    chart = ROOT / "deploy" / "helm" / "cospan"
    files = made("kubernetes", "queues", "--agents", "4")
    kept = {f"chart/{file.relative_to(chart)}": file.read_text() for file in chart.rglob("*") if file.is_file()}
    assert {name: text for name, text in files.items() if name.startswith("chart/")} == kept
    assert "chart/values.schema.json" in kept


@pytest.mark.parametrize("tls", [(), ("--tls",)])
@pytest.mark.parametrize("engine", ["swarm", "compose"])
def test_containers_are_what_the_commands_take(engine: str, tls: tuple[str, ...]) -> None:
    (text,) = made(engine, "queues", "--agents", "10", "--groups", "3", "--seed", "5", *tls).values()
    assert "@" not in text.replace("@sentence", "")
    document: dict[str, Any] = yaml.safe_load(text)
    services = document["services"]
    coordinator = services["coordinator"]
    assert coordinator["command"][:2] == ["coordinator", "--workload=queues"]
    assert ("--insecure" in coordinator["command"]) is not bool(tls)
    assert ("COSPAN_TLS_CERT" in str(coordinator)) is bool(tls)
    agents = [service for name, service in services.items() if name != "coordinator"]
    shards = {part for agent in agents for part in agent["command"] if part.startswith("--shard=")}
    if engine == "swarm":
        assert shards == {"--shard=SWARM_TASK_SLOT/3"}
        assert agents[0]["deploy"]["replicas"] == 3
        assert agents[0]["environment"]["SWARM_TASK_SLOT"] == "{{.Task.Slot}}"
        assert not {"build", "depends_on", "restart", "security_opt", "ports"} & {*coordinator, *agents[0]}
        named = {secret["source"] for service in services.values() for secret in service.get("secrets", ())}
        assert named == set(document.get("secrets", ()))
    else:
        assert shards == {f"--shard={number}/3" for number in range(3)}


@pytest.mark.parametrize("tls", [(), ("--tls",)])
def test_the_scripts_of_slurm(tls: tuple[str, ...]) -> None:
    files = made("slurm", "queues", "--agents", "10", "--groups", "3", *tls)
    assert set(files) == {"agents.sbatch", "coordinator.sbatch", "submit.sh"}
    for name, text in files.items():
        assert not subprocess.run(["bash", "-n", f"made/{name}"], check=True, capture_output=True).stderr
        assert text.startswith("#!/bin/bash\n")
    assert "#SBATCH --array=0-2\n" in files["agents.sbatch"]
    assert "--shard=SLURM_ARRAY_TASK_ID/3" in files["agents.sbatch"]
    assert ("--insecure" in files["coordinator.sbatch"]) is not bool(tls)
    assert ("--tls-cert=certs/coordinator/cert.pem" in files["coordinator.sbatch"]) is bool(tls)
    assert Path("made/submit.sh").stat().st_mode & 0o111


@pytest.mark.parametrize(
    ("code", "signal", "ends", "starts", "requeued"),
    [
        (0, "", 0, 1, False),
        (2, "", 2, 1, False),
        (75, "USR1", 75, 1, True),
        (75, "TERM", 75, 1, False),
        (1, "", 1, 20, False),
    ],
)
@pytest.mark.parametrize("pause", ["", "sleep 0.1"])
def test_a_job_is_queued_again_only_at_its_time_limit(
    code: int, signal: str, ends: int, starts: int, pause: str, *, requeued: bool
) -> None:
    """The function of both scripts, around a command that ends as it is told to.

    With a pause, the signal comes before the function knows the number of the command's process.
    """
    script = made("slurm", "queues", "--agents", "2")["agents.sbatch"]
    function = script[script.index("run_again()") : script.index("\n}\n") + 3].replace("sleep 5", "sleep 0.01")
    function = function.replace('"$@" &\n', f'"$@" &\n{pause}\n')
    Path("command.sh").write_text(
        f"echo started\ntrap 'exit {code}' TERM\n"
        + (f"kill -{signal} $PPID\nsleep 20 > /dev/null 2>&1 & wait\n" if signal else f"exit {code}\n")
    )
    program = f"set -u; SLURM_JOB_ID=7; scontrol() {{ echo scontrol $*; }}; {function} run_again bash command.sh"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == ends, done.stderr
    assert done.stdout.count("started") == starts
    assert ("scontrol requeue 7" in done.stdout) is requeued


def test_a_job_that_ends_as_it_is_told_to_stop_is_not_failed() -> None:
    """Bash may lose the exit code of a process that ends just as a signal interrupts its wait."""
    script = made("slurm", "queues", "--agents", "2")["agents.sbatch"]
    function = script[script.index("run_again()") : script.index("\n}\n") + 3]
    Path("command.sh").write_text("trap 'exit 75' TERM\nsleep 0.05\nkill -USR1 $PPID\nexit 75\n")
    program = f"set -u; SLURM_JOB_ID=7; sleep() {{ :; }}; scontrol() {{ :; }}; {function} run_again bash command.sh"
    codes = [subprocess.run(["bash", "-c", program], timeout=SECONDS, check=False).returncode for _ in range(12)]
    assert set(codes) == {75}


def test_the_units_of_systemd() -> None:
    program = shlex.quote(sys.executable)
    files = made("systemd", "queues", "--agents", "10", "--groups", "3", "--program", program)
    assert "--host=127.0.0.1" in files["cospan-coordinator.service"]
    assert "--insecure" not in files["cospan-coordinator.service"]
    assert "cospan-agents@2.service" in files["cospan-agents.target"]
    if shutil.which("systemd-analyze"):
        units = [f"made/{name}" for name in files]
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *units],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert (done.returncode, [line for line in done.stderr.splitlines() if "cospan" in line]) == (0, [])


@pytest.mark.parametrize("tls", [(), ("--tls",)])
@pytest.mark.parametrize("engine", ENGINES)
def test_secure_sums_are_a_flag_of_every_engine(engine: str, tls: tuple[str, ...]) -> None:
    """What the coordinator is started with; the chart takes it from its values."""
    fleet = (engine, "queues", "--agents", "12", "--groups", "4", *tls)
    files = made(*fleet, "--secure-sums", "--min-cohort", "4")
    text = "\n".join(files.values())
    if engine == "kubernetes":
        values = yaml.safe_load(files["values.yaml"])
        assert (values["run"]["settings"]["secure-sums"], values["run"]["settings"]["min-cohort"]) == ("true", "4")
    else:
        assert "--secure-sums" in text
        assert "--min-cohort=4" in text
    assert in_this_process("deploy", *fleet, "--secure-sums", "--min-cohort", "5", "--dry-run") == 2


def test_a_coordinator_of_other_machines_needs_tls_or_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    asked = (
        "deploy",
        "systemd",
        "queues",
        "--agents",
        "4",
        "--coordinator",
        "plant.example.org:15051",
        "--dry-run",
    )
    assert in_this_process(*asked) == 2
    assert "which other machines can reach, and there is no TLS" in " ".join(capsys.readouterr().err.split())
    assert in_this_process(*asked, "--insecure") == 0
    assert "--host=0.0.0.0 \\\n    --insecure" in capsys.readouterr().out
    assert in_this_process(*asked, "--tls") == 0
    units = capsys.readouterr().out
    assert "--tls-key=/etc/cospan/coordinator/key.pem" in units
    assert units.count("SupplementaryGroups=cospan-certs") == 2, "a dynamic user owns no file of /etc"


@pytest.mark.parametrize("engine", ENGINES)
def test_existing_files_are_kept(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = made(engine, "queues", "--agents", "4")
    asked = ("deploy", engine, "queues", "--agents", "5", "--output", "made")
    assert in_this_process(*asked) == 1
    assert "overwrite with --force" in " ".join(capsys.readouterr().err.split())
    assert in_this_process(*asked, "--dry-run") == 0
    assert in_this_process("deploy", engine, "queues", "--agents", "5") == 2
    assert "name the folder with --output, or print" in " ".join(capsys.readouterr().err.split())
    second = {str(file.relative_to("made")): file.read_text() for file in Path("made").rglob("*") if file.is_file()}
    assert first == second
    assert in_this_process(*asked, "--force") == 0
