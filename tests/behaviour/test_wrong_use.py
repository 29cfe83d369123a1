"""What `cospan` says to a wrong use: in this process, for there are many and a process costs a second."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from behaviour.command import TINY, TOY, cospan, in_this_process, line_of, started

from cospan.cli import main as entry


def refusal(capfd: pytest.CaptureFixture[str], arguments: Sequence[str]) -> tuple[int, str]:
    """Exit code and sentence of a command that is refused; nothing else is said, and nothing is left."""
    before = sorted(Path.cwd().rglob("*"))
    code = in_this_process(*arguments)
    out, err = capfd.readouterr()
    said = ("making site", "cospan: warning: feature_dim is 3 and rank is 3")
    sentences = [line for line in err.splitlines() if not line.startswith(said)]
    assert out == ""
    assert len(sentences) == 1, err
    assert sentences[0].startswith("cospan: ")
    assert sorted(Path.cwd().rglob("*")) == before
    assert isinstance(code, int)
    return code, sentences[0]


@pytest.mark.usefixtures("_toys")
@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (f"run {TOY} --rank 0", 2, "rank is 0; it must be 1 to feature_dim = 3"),
        (f"run {TOY} --rank 4", 2, "rank is 4; it must be 1 to feature_dim = 3"),
        (f"run {TOY} --agents 0", 2, "agents is 0; it must be"),
        (f"run {TOY} --agents 11", 2, "agents is 11; workload 'toy_workload:workload' has 10 sites"),
        (f"run {TOY} --agents many", 2, "agents is 'many' in --agents; it must be a whole number"),
        (f"run {TOY} --steps-per-round 1", 1, "allow this one with --min-steps-per-round 1"),
        (f"run {TOY} --min-steps-per-round 6", 1, "has 5 steps per round, and min_steps_per_round is 6"),
        (f"agent {TOY} --id 1 --min-steps-per-round 0", 2, "min_steps_per_round is '0' in --min-steps-per-round"),
        ("run microgrid", 2, "there is no workload 'microgrid'; take one of synthetic"),
        ("run nowhere:workload", 2, "there is no module 'nowhere'"),
        ("run toy_workload:nothing", 2, "has no attribute 'nothing'"),
        ("run toy_workload:not_a_workload", 2, "it must be a cospan.client.workload.Workload"),
        ("run toy_workload:site_raises", 1, "failed to make site 0: RuntimeError: no plan of this site"),
        ("run", 2, "no workload is named"),
        ("compare", 2, "Missing argument 'WORKLOAD'; see `cospan compare --help`"),
        (f"run {TOY} --fast", 2, "No such option"),
        (f"run {TOY} --port 70000", 2, "port is '70000'"),
        (f"run {TOY} --config nowhere.toml", 2, "there is no file nowhere.toml"),
        (f"run {TOY} --spec nowhere.toml", 1, "there is no file nowhere.toml"),
        (f"run {TOY} --output full", 1, "the run folder full is not empty"),
        (f"run {TOY} --output full/file", 1, "the run folder full/file is a file"),
        (f"run {TOY} --output full/file/run", 1, "full/file is a file"),
        ("run toy_workload:wrong_length --in-process", 1, "gave an array of shape (21, 2)"),
        ("run toy_workload:not_finite --in-process", 1, "an entry that is not finite"),
        ("run toy_workload:too_long --in-process", 1, "a vector of norm 3"),
        ("run toy_workload:raises_at_once --in-process", 1, "raised RuntimeError in step 0: the pump is on fire"),
        ("coordinator", 2, "name a workload with --workload"),
        ("coordinator --feature-dim 3 --rank 4", 2, "rank is 4; it must be 1 to feature_dim = 3"),
        (
            "coordinator --feature-dim 3 --rank 1 --host 0.0.0.0",
            2,
            "host is 0.0.0.0, which other machines can reach",
        ),
        ("coordinator --feature-dim 3 --rank 1 --run-folder full", 1, "the run folder full is not empty"),
        (f"coordinator --workload {TOY} --feature-dim 3", 2, "leave out --feature-dim"),
        (f"agent {TOY} --id pump-a", 2, "'pump-a' does not end in a number"),
        (f"agent {TOY} --index 3 --sticky-site", 2, "--sticky-site asks for a free site, and site 3 is given"),
        ("coordinator --feature-dim 3 --rank 1 --run-folder a --runs-folder b", 2, "are mutually exclusive"),
        (f"compare {TOY} --rounds 0", 2, "a comparison has an end"),
        (f"compare {TOY} --output full", 1, "the run folder full is not empty"),
        (f"rank {TOY} --agents 1", 2, "agents is 1; a subspace is what several agents share"),
        (f"rank {TOY} --share 2", 2, "share is 2.0; it must be above 0, at most 1"),
        ("rank toy_workload:too_long --quiet", 1, "a vector of norm 3"),
        ("run toy_workload:with_constant", 1, "have a constant function in their span: over 4 states"),
        ("coordinator --workload toy_workload:with_constant", 1, "have a constant function in their span"),
        (
            "rank toy_workload:with_constant --agents 2 --rounds 9 --quiet",
            1,
            "smallest eigenvalue of -(A + Aᵀ)/2 is",
        ),
        ("compare nothing", 2, "there is no workload 'nothing'"),
        (f"agent {TOY} --id a/1", 2, "agent id 'a/1' must be"),
        (f"agent {TOY} --id 1 --coordinator here", 2, "coordinator is 'here'"),
        (f"agent {TOY} --id 1 --output nowhere/1.npz", 1, "cannot write nowhere/1.npz"),
        (f"agent {TOY} --id 1 --resume nowhere.npz", 1, "there is no file nowhere.npz"),
        (
            f"agent {TOY} --id 1 --resume full/file",
            1,
            "full/file cannot be read as the result of an agent: it is no npz file",
        ),
        (
            f"agent {TOY} --id 1 --coordinator 127.0.0.1:1 --progress-timeout-seconds 0",
            1,
            "127.0.0.1:1 does not answer",
        ),
        ("status --coordinator 127.0.0.1:1", 1, "127.0.0.1:1 does not answer"),
        ("stop --coordinator 127.0.0.1:1", 1, "127.0.0.1:1 does not answer"),
        ("status --tls-cert c.pem", 2, "tls_cert is said and tls_key and tls_ca are not; TLS needs all three"),
        (
            f"agent {TOY} --id 1 --tls-cert c --tls-key k --tls-ca a",
            2,
            "tls_cert is c, which cannot be read: No such",
        ),
        (
            "coordinator --feature-dim 3 --rank 1 --run-folder new --tls-cert c --tls-key k --tls-ca a",
            2,
            "tls_cert is c, which cannot be read: No such file",
        ),
        (
            "coordinator --feature-dim 3 --rank 1 --insecure --tls-ca a",
            2,
            "tls_ca is said and tls_cert and tls_key are not",
        ),
    ],
)
def test_a_wrong_use_gets_one_sentence_and_leaves_nothing(
    command: str, code: int, says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    found, sentence = refusal(capfd, command.split())
    assert says in sentence
    assert found == code


@pytest.mark.usefixtures("_toys")
def test_a_path_that_is_too_long_gets_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    assert in_this_process("run", TOY, *TINY, "--output", 300 * "a") == 1
    assert "cannot read the run folder" in capfd.readouterr().err


@pytest.mark.usefixtures("_toys")
def test_the_files_of_another_run_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert in_this_process("run", TOY, *TINY, "--in-process", "--quiet", "--output", "mine") == 0
    capfd.readouterr()
    code, sentence = refusal(capfd, ["run", "toy_workload:unknown_truth", "--spec", "mine/spec.toml"])
    assert code == 2
    assert "mine/spec.toml is of workload 'toy_workload:workload', and the command names" in sentence
    spec = (tmp_path / "mine" / "spec.toml").read_text()
    (tmp_path / "bad.toml").write_text(spec.replace("rank = 1", "rank = 7"))
    code, sentence = refusal(capfd, ["run", TOY, "--spec", "bad.toml"])
    assert (code, "rank is 7" in sentence) == (1, True)


@pytest.mark.usefixtures("_toys")
def test_an_agent_refuses_to_resume_another_run(tmp_path: Path) -> None:
    assert in_this_process("run", TOY, *TINY, "--in-process", "--quiet", "--output", "mine") == 0
    saved = tmp_path / "mine" / "agents" / "site-0.npz"
    before = saved.read_bytes()
    arguments = ("--workload", TOY, "--agents", "1", "--rounds", "20", "--port", "0", "--json")
    with started("coordinator", *arguments, cwd=tmp_path) as coordinator:
        address = json.loads(line_of(coordinator, "listening"))["address"]
        own = ("--id", "0", "--coordinator", address, "--resume", str(saved), "--output", str(saved))
        code, _, err = cospan("agent", TOY, *own, cwd=tmp_path)
    assert code == 1
    assert "it was saved in another run" in err
    assert saved.read_bytes() == before


@pytest.mark.usefixtures("_toys")
def test_a_traceback_is_shown_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="there is no workload 'nothing'"):
        entry.main(["run", "nothing", "--debug"])
