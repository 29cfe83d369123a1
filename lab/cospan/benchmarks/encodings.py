"""Size and cost of an upload: dense or factored, float64 or float32, of one agent or of a group."""

from collections.abc import Callable, Sequence

import numpy as np

from cospan.benchmarks.tools.paired_timing import in_turns
from cospan.benchmarks.tools.report import SHAPE_COLUMNS, Column, Report, Row
from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix, Gradient
from cospan.core.method import paper
from cospan.core.specification import RunSpecification
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.wire.codec.messages import decode_agent_message, encode_agent_message
from cospan.wire.messages import GradientUpload

SHAPES = ((20, 3), (1024, 16), (65_536, 32))
GROUPS = (1, 10, 100, 1000)
NOTES = (
    "bytes: of the whole request, the sum over the agents of a group; a group has at most r factors.",
    "encode, decode: microseconds between the arrays and the bytes; decoding checks everything.",
    "copies: encoding and decoding in times of one copy of the payload's bytes, measured in turns.",
)
COLUMNS = (
    *SHAPE_COLUMNS,
    Column("agents", "agents", "d"),
    Column("encoding", "encoding"),
    Column("dtype", "type"),
    Column("bytes", "bytes", ",d"),
    Column("bytes_per_agent", "per agent", ",.1f"),
    Column("encode_us", "encode", ".1f"),
    Column("decode_us", "decode", ".1f"),
    Column("copies", "copies", ".1f"),
)


def benchmark(
    shapes: Sequence[tuple[int, int]], groups: Sequence[int], seconds: float, say: Callable[[str], None]
) -> Report:
    """Measures each encoding of each shape for about `seconds`."""
    rows = []
    for d, r in shapes:
        say(f"{d} × {r}")
        for agents in groups:
            for factored in (False, True):
                rows += [
                    _row(d, r, agents, dtype, seconds, factored=factored) for dtype in (np.float64, np.float32)
                ]
    return Report("encodings", NOTES, COLUMNS, tuple(rows))


def _gradient(d: int, r: int, agents: int, dtype: type[np.floating], *, factored: bool) -> Gradient:
    rng = np.random.default_rng(0)
    if not factored:
        return DenseMatrix(rng.standard_normal((d, r)).astype(dtype))
    factors = min(agents, r)
    return FactoredMatrix(
        rng.standard_normal((d, factors)).astype(dtype), rng.standard_normal((r, factors)).astype(dtype)
    )


def _row(d: int, r: int, agents: int, dtype: type[np.floating], seconds: float, *, factored: bool) -> Row:
    gradient = _gradient(d, r, agents, dtype, factored=factored)
    upload = GradientUpload(1_000_000, Contribution(gradient, float(agents)))
    spec = RunSpecification("", d, r, agents=agents, rounds=0, seed=0, method=paper(1))
    encoded = encode_agent_message(upload).SerializeToString()
    payload = np.empty(len(encoded), np.uint8)
    into = np.empty_like(payload)
    turns = in_turns(
        (
            lambda: np.copyto(into, payload),
            lambda: encode_agent_message(upload).SerializeToString(),
            lambda: decode_agent_message(pb.CollaborateRequest.FromString(encoded), spec),
        ),
        rounds=3,
        seconds=seconds,
    )
    return {
        "feature_dim": d,
        "rank": r,
        "agents": agents,
        "encoding": "factored" if factored else "dense",
        "dtype": np.dtype(dtype).name,
        "bytes": len(encoded),
        "bytes_per_agent": len(encoded) / agents,
        "encode_us": 1e6 * turns.median(1),
        "decode_us": 1e6 * turns.median(2),
        "copies": turns.ratio(1, 0).value + turns.ratio(2, 0).value,
        "rounds": len(turns.seconds),
    }
