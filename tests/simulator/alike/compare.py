"""One script in both worlds, and in what their ends differ."""

from dataclasses import dataclass
from pathlib import Path

from simulator.alike.played import PlayedStage
from simulator.alike.processes import RealStage
from simulator.alike.script import Ended, Performance, Script


@dataclass(frozen=True, slots=True)
class Compared:
    """What both worlds have ended with; `problem` is empty where they ended alike."""

    played: Ended
    real: Ended
    problem: str

    @property
    def voids(self) -> int:
        """Rounds without contributors."""
        return sum(not contributors for contributors, _ in self.played)


def compared(script: Script, folder: Path) -> Compared:
    """Plays a script in the simulator, and with real processes in a folder."""
    played = Performance(script, PlayedStage(script)).perform()
    with RealStage(script, folder).running() as stage:
        real = Performance(script, stage).perform()
    return Compared(played, real, _difference(played, real))


def _difference(played: Ended, real: Ended) -> str:
    for number, (one, other) in enumerate(zip(played, real, strict=False)):
        if one[0] != other[0]:
            return f"round {number} has the contributors {one[0]} in the simulator, and {other[0]} for real"
        if one[1] != other[1]:
            return f"round {number} has another basis for real: {other[1]}, in the simulator {one[1]}"
    if len(played) != len(real):
        return f"the simulator has {len(played)} rounds, the real run {len(real)}"
    return ""
