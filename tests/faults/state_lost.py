"""A coordinator whose stored state is removed while it is down: its agents refuse the new run, and say why."""

import asyncio
import json
import shutil
import signal
from pathlib import Path

from faults.fleet import Fleet

from cospan.wire.messages import RunPhase

_AGENTS = 3
_ROUNDS = 20
_SECONDS = 60.0
_CHOICE = ("Restore it to continue the run", "restart the agent to join the other one")


async def run_state_lost(folder: Path, seed: int) -> list[str]:
    """One run; what is wrong with how its agents took the loss."""
    await asyncio.to_thread(folder.mkdir, parents=True)
    flags = ["--agents", str(_AGENTS), "--rounds", "100000", "--seed", str(seed)]
    fleet = Fleet(folder, flags, agents=_AGENTS, witnesses=1, bridged=False, pace=0.002)
    async with fleet.running():
        for agent in fleet.agents:
            agent.over = lambda life: not life.asked
        async with asyncio.timeout(_SECONDS):
            await fleet.reached(_ROUNDS)
        fleet.coordinator.before_start = lambda: shutil.rmtree(fleet.run_folder)
        fleet.coordinator.end(signal.SIGTERM)
        problems = [f"{agent.name} does not end" for agent in fleet.agents if not await agent.ended(_SECONDS)]
        report = await fleet.report()
    if report is None or (report.phase, report.stamp.round) != (RunPhase.WAITING, 0):
        problems.append(f"the coordinator has not begun another run: {report}")
    for agent in fleet.agents:
        said = agent.errors() + "".join(life.last_words for life in agent.lives)
        life = agent.lives[-1] if agent.lives else None
        if life is None or life.code != 1 or not all(words in said for words in _CHOICE):
            problems.append(f"{agent.name} does not explain the choice: {life}\n{said}")
    reason = json.loads(fleet.agents[0].lives[-1].last_words).get("reason") if fleet.agents[0].lives else None
    if reason != "FOREIGN_RUN":
        problems.append(f"the reason is {reason}")
    return problems
