"""`python -m fuzz.player COUNT`: holds the conversations on its standard input, and looks at its own memory.

It is given what the guided fuzzer has made, and runs the code as it is: instrumented code grows by itself.
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from faults.footprint import resident_mib
from fuzz.conversations import play
from fuzz.subjects import errors_are_findings

LOOKS = 10
WARM_UP = 0.2
"""Of the messages."""


@dataclass(slots=True)
class Looks:
    """Resident memory, in MiB, after that many messages."""

    count: int
    taken: list[tuple[int, float]] = field(default_factory=list)

    def after(self, messages: int) -> None:
        """Takes one where it is time."""
        if messages >= len(self.taken) * self.count // LOOKS:
            self.taken.append((messages, resident_mib(os.getpid())))

    def growth(self) -> float:
        """How much larger it was at most than after the warm-up; 1 where it is the same."""
        warm = [memory for number, memory in self.taken if number >= WARM_UP * self.count]
        return max(warm) / warm[0]


def send(conversation: bytes, pipe: BinaryIO) -> None:
    """Hands one to a player."""
    pipe.write(len(conversation).to_bytes(4, "little") + conversation)


def received(pipe: BinaryIO) -> Iterator[bytes]:
    """All that is sent, until the other end is closed."""
    while length := pipe.read(4):
        yield pipe.read(int.from_bytes(length, "little"))


def main() -> None:
    """Plays them all, and says how that went in one line of JSON."""
    looks = Looks(int(sys.argv[1]))
    messages = conversations = 0
    with errors_are_findings():
        for data in received(sys.stdin.buffer):
            looks.after(messages)
            messages += play(data)
            conversations += 1
    looks.after(messages)
    told = {"messages": messages, "conversations": conversations, "looks": looks.taken, "growth": looks.growth()}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
