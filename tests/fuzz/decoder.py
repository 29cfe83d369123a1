"""Many messages through the decoders and the machines behind them, made by a fuzzer that follows their coverage.

Two processes: `fuzz.guided` makes conversations and holds them with instrumented code; it hands each of them to
`fuzz.player`, which holds it once more with the code as it is, and whose memory is looked at.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

from fuzz.conversations import fresh_input, mutated_input, play
from fuzz.subjects import errors_are_findings

TESTS = Path(__file__).resolve().parents[1]
MOST_GROWTH = 1.05
_MUTATIONS = (0, 1, 1, 1, 2, 3)
_LAST_LINES = 40


def play_randomly(count: int, seed: int) -> int:
    """At least `count` messages without a guide; how many. A finding is raised with a note of its input."""
    rng = random.Random(seed)
    messages = 0
    with errors_are_findings():
        while messages < count:
            data = fresh_input(rng)
            for _ in range(rng.choice(_MUTATIONS)):
                data = mutated_input(data, rng)
            try:
                messages += play(data)
            except Exception as finding:
                finding.add_note(f"found by the conversation {data.hex()}")
                raise
    return messages


def run_decoder(folder: Path, count: int, seed: int) -> list[str]:
    """At least `count` messages with a guide; what they have found."""
    folder.mkdir(parents=True)
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    player_command = [sys.executable, "-m", "fuzz.player", str(count)]
    guided_command = [sys.executable, "-m", "fuzz.guided", str(count), str(seed), str(folder)]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(player_command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as player,
        subprocess.Popen(guided_command, env=environment, stdout=player.stdin, stderr=log) as guided,
    ):
        told = player.communicate()[0]  # which closes this end of what joins the two
        guided.wait()
    if guided.returncode or player.returncode:
        said = (folder / "log").read_text(encoding="utf-8", errors="replace").splitlines()
        found = [f"again with: python -m fuzz --again {path}" for path in sorted(folder.glob("crash-*"))]
        codes = f"the guided fuzzer ended with {guided.returncode}, the player with {player.returncode}"
        return ["\n".join([codes, *said[-_LAST_LINES:]]), *found]
    return _judged(json.loads(told), count)


def _judged(told: dict[str, object], count: int) -> list[str]:
    for number, memory in told["looks"]:
        print(f"  {number:>9,} messages {memory:>8.2f} MiB", flush=True)
    messages, growth = told["messages"], told["growth"]
    print(f"  {messages:,} messages in {told['conversations']:,} conversations", flush=True)
    print(f"  memory after the warm-up: largest {growth:.4f} times the first; bound {MOST_GROWTH}", flush=True)
    problems = [f"memory has grown by {100 * (growth - 1):.1f} %"] if growth > MOST_GROWTH else []
    return problems + ([f"only {messages} of {count} messages were played"] if messages < count else [])
