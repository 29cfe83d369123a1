"""Rounds per second of Cospan and of other frameworks at the same job, in turns on the same machine.

The job: a barrier, the mean of all gradients, a QR step, and the next basis sent to all. The peers run in an
environment of their own and receive over a connection to this process how many rounds to run.
"""

import asyncio
import contextlib
import json
import tempfile
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cospan.benchmarks.jobs.gradient_exchange import first_basis, gradient_of, next_basis
from cospan.benchmarks.tools.paced_run import PacedRun, fitting_rounds, paced_coordinator, take_turns
from cospan.benchmarks.tools.peer_processes import PEERS, Job, Peer, PeerError, versions_of
from cospan.benchmarks.tools.processes import Case, bounded
from cospan.benchmarks.tools.report import Cell, Column, Report, Row, interval_cells, interval_columns
from cospan.experiments.estimates import median_estimate
from cospan.wire.errors import CospanError

AGENTS = (2, 8)
_BLOCK_SECONDS = 0.5
_LEAST_BLOCKS = 5
_START_SECONDS = 120.0
_BLOCK_TIMEOUT_SECONDS = 180.0
_TOLERANCE = 1e-9
"""Of the basis: peers sum in another order, over thousands of rounds of a contracting step."""

NOTES = (
    "rounds/s: medians over blocks of rounds, in turns; ratio: Cospan / peer, of neighbouring blocks.",
    "Cospan: `cospan coordinator` and its store (synchronous=FULL), one process an agent; the peers store nothing.",
    "Each peer must end with the basis of the job's arithmetic; otherwise the remark says that it failed.",
)
COLUMNS = (
    Column("peer", "peer"),
    Column("agents", "agents", "d"),
    Column("rounds_per_second", "Cospan's rounds/s", ".4g"),
    Column("peer_rounds_per_second", "peer's", ".4g"),
    *interval_columns("ratio_to_peer", "ratio", "ratio", ".3g"),
    Column("blocks", "blocks", "d"),
    Column("peer_rounds", "peer's rounds", "d"),
    Column("versions", "versions"),
    Column("remark", "remark"),
)


def benchmark(cases: Sequence[Case], environment: Path, seconds: float, say: Callable[[str], None]) -> Report:
    """Measures each case with each peer for about `seconds`, and for at least five blocks of rounds.

    Args:
        cases: agents and shapes.
        environment: the folder of the virtual environment with the peers; missing peers are left out.
        seconds: for each case and peer, without their start.
        say: takes a line of progress.

    Raises:
        CospanError: Cospan's own coordinator did not start, or ended.
    """
    rows = []
    for case in cases:
        for peer in PEERS:
            say(f"{peer.name}, {case.agents} agents, {case.feature_dim} × {case.rank}")
            rows.append(asyncio.run(_beside(peer, case, environment.absolute(), seconds)))
            if rows[-1]["remark"]:
                say(f"{peer.name}: {rows[-1]['remark']}")
    return Report("peers", NOTES, COLUMNS, tuple(rows))


async def _beside(peer: Peer, case: Case, environment: Path, seconds: float) -> Row:
    try:
        versions = await versions_of(environment, peer.needs)
    except PeerError as failure:
        return _row(peer, case, remark=str(failure))
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="cospan-", ignore_cleanup_errors=True))
        )
        own = await stack.enter_async_context(paced_coordinator(case, folder / "run"))
        try:
            line = await stack.enter_async_context(_started(peer, case, environment, folder))
            await _take_turns(own, line, peer, seconds)
            _require_basis(line, case)
        except PeerError as failure:
            return _row(peer, case, versions=versions, remark=str(failure))
        return _row(peer, case, own.rates(), np.array(line.rates), line.rounds, versions=versions)


@dataclass(slots=True)
class _Line:
    """The other end of `cospan.benchmarks.jobs.pace`, and what was measured over it."""

    reader: StreamReader
    writer: StreamWriter
    rounds: int = 0
    basis: str = ""
    rates: list[float] = field(default_factory=list)

    async def run_block(self, rounds: int, *, counted: bool = True) -> float:
        """Runs rounds and returns their seconds."""
        try:
            async with bounded("a block of rounds", _BLOCK_TIMEOUT_SECONDS):
                self.writer.write(f"{rounds}\n".encode())
                answer = await self.reader.readline()
        except (CospanError, OSError, ValueError) as failure:
            raise PeerError(f"failed: {failure}") from failure
        if not answer:
            raise PeerError(f"failed: it ended after {self.rounds} rounds")
        document = json.loads(answer)
        self.rounds += rounds
        self.basis = document["basis"]
        if counted:
            self.rates.append(rounds / document["seconds"])
        return float(document["seconds"])


@contextlib.asynccontextmanager
async def _started(peer: Peer, case: Case, environment: Path, folder: Path) -> AsyncIterator[_Line]:
    """A peer that has started and waits for the number of rounds to run; it ends with the line."""
    connected: asyncio.Future[_Line] = asyncio.get_running_loop().create_future()

    def take(reader: StreamReader, writer: StreamWriter) -> None:
        if connected.done():
            writer.close()
        else:
            connected.set_result(_Line(reader, writer))

    limit = 64 + 3 * 8 * case.feature_dim * case.rank
    listener = await asyncio.start_server(take, "127.0.0.1", 0, limit=limit)
    host, port = listener.sockets[0].getsockname()
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(listener.close)
        try:
            async with bounded("its start", _START_SECONDS):
                await stack.enter_async_context(peer.start(Job(case, environment, f"{host}:{port}", folder)))
                line = await connected
        except CospanError as failure:
            raise PeerError(f"failed: {failure}") from failure
        stack.callback(line.writer.close)
        yield line


async def _take_turns(own: PacedRun, line: _Line, peer: Peer, seconds: float) -> None:
    """Runs blocks of each in turns, in alternating order."""
    own_rounds = await fitting_rounds([own], min(_BLOCK_SECONDS, seconds))
    peer_rounds = 1
    await line.run_block(1, counted=False)  # initialisation of the framework
    while await line.run_block(peer_rounds, counted=False) < min(peer.block_seconds, seconds):
        peer_rounds *= 2
    await take_turns([(own, own_rounds), (line, max(1, peer_rounds // 2))], seconds, _LEAST_BLOCKS)


def _require_basis(line: _Line, case: Case) -> None:
    """Checks that each agent's gradient was in the mean of each round."""
    total = sum(gradient_of(number, case.feature_dim, case.rank) for number in range(case.agents))
    basis = first_basis(case.feature_dim, case.rank)
    for _ in range(line.rounds):
        basis = next_basis(basis, np.asarray(total), case.agents)
    found = np.frombuffer(bytes.fromhex(line.basis), "<f8").reshape(basis.shape)
    error = float(np.abs(found - basis).max())
    if not error <= _TOLERANCE:
        raise PeerError(f"failed: its basis after {line.rounds} rounds is off by {error:.1g}")


def _row(
    peer: Peer,
    case: Case,
    own_rates: np.ndarray | None = None,
    peer_rates: np.ndarray | None = None,
    rounds: int = 0,
    *,
    versions: str = "",
    remark: str = "",
) -> Row:
    named: dict[str, Cell] = {"peer": peer.name, **case.cells}
    named |= {"versions": versions, "remark": remark, "peer_rounds": rounds}
    if own_rates is None or peer_rates is None:
        unknown = ("rounds_per_second", "peer_rounds_per_second", "ratio_to_peer", "ratio_low", "ratio_high")
        return named | dict.fromkeys(unknown) | {"blocks": 0}
    ratio = median_estimate(own_rates / peer_rates)
    return named | {
        "rounds_per_second": float(np.median(own_rates)),
        "peer_rounds_per_second": float(np.median(peer_rates)),
        **interval_cells("ratio_to_peer", "ratio", ratio),
        "blocks": len(peer_rates),
    }
