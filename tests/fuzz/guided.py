"""`python -m fuzz.guided COUNT SEED FOLDER`: the process in which atheris runs.

Every conversation that it has held goes to standard output, for a `fuzz.player`. It ends after COUNT messages; or
before, with what it has found on standard error, and FOLDER/crash-…, an input for `python -m fuzz --again`.
"""

import os
import random
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["cospan"], enable_loader_override=False):
    from fuzz.conversations import MOST_TURNS, fresh_input, mutated_input, play
    from fuzz.player import send
    from fuzz.subjects import errors_are_findings

_SPECIMENS = 200
_LONGEST = MOST_TURNS * 1024
_FRESH = 0.1
"""Share of the conversations that start with valid messages."""
_SECONDS_AN_INPUT = 10
_MEMORY_LIMIT_MIB = 2048


class Fuzzer:
    """Holds conversations, makes others from them, and ends the process when there were enough."""

    def __init__(self, count: int) -> None:
        self._left = count

    def play(self, data: bytes) -> None:
        """One conversation."""
        self._left -= play(data)
        send(data, sys.stdout.buffer)
        if self._left <= 0:
            sys.stdout.flush()
            os._exit(0)  # libFuzzer has no other end than a number of inputs

    def mutate(self, data: bytes, max_size: int, seed: int) -> bytes:
        """A conversation like this one; now and then like one of valid messages."""
        rng = random.Random(seed)
        before = fresh_input(rng) if rng.random() < _FRESH else data
        return mutated_input(before, rng, _of_bytes)[:max_size]


def _of_bytes(wire: bytes) -> bytes:
    return bytes(atheris.Mutate(wire, len(wire) + 16))


def main() -> None:
    """Does not return."""
    count, seed, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    specimens = folder / "specimens"
    specimens.mkdir()
    rng = random.Random(seed)
    for number in range(_SPECIMENS):
        (specimens / str(number)).write_bytes(fresh_input(rng))
    fuzzer = Fuzzer(count)
    flags = [f"-seed={seed % 2**32 or 1}", f"-artifact_prefix={folder}/", f"-max_len={_LONGEST}", "-len_control=0"]
    flags += [f"-timeout={_SECONDS_AN_INPUT}", f"-rss_limit_mb={_MEMORY_LIMIT_MIB}"]
    with errors_are_findings():
        atheris.Setup([sys.argv[0], *flags, str(specimens)], fuzzer.play, custom_mutator=fuzzer.mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
