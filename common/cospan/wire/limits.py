"""Sizes that follow from the run: message limits, keepalive, bounds on text."""

import grpc

from cospan.core.secure_sums.graph import degree_of
from cospan.core.secure_sums.layout import capacity_bits_of
from cospan.core.specification import message_numbers

MAX_GROUP = 65_536
"""Most agents that one process may host."""
MAX_ROUND = 2**63 - 1
"""The largest round, and the largest count of anything that a peer tells of: what a signed 64-bit integer holds."""
MAX_METADATA_BYTES = 16 * 1024
"""Of the headers or trailers of a call, names included; an error's sentence of 2000 characters fits."""

MAX_CERTIFICATES_BYTES = 16 * 1024
"""Of a member's certificate and those between it and the authority, PEM."""
MAX_SIGNATURE_BYTES = 256

_OVERHEAD = 64 * 1024
_PER_AGENT_ID = 68
_PER_MEMBER = 64
"""Of a member of secure sums: its key, and what stands around it."""
_PER_PROOF = 4096
"""Of a proof, in the mean over the members below a relay; by a certificate of `cospan certs` it has 1,000 bytes."""


def most_known_agents(agents: int) -> int:
    """How many agents a run of this size remembers, those that left included."""
    return 4 * agents + 8192


def max_message_bytes(feature_dim: int, rank: int, group_size: int = 1, *, pooled: int = 0) -> int:
    """The largest message of a run with features of length d and rank r: float64 numbers, and a group's names.

    Args:
        feature_dim: d.
        rank: r.
        group_size: the most agents of one process.
        pooled: how many numbers an agent sends to be pooled (`RunSpecification.pooled_length`).
    """
    return 8 * message_numbers(feature_dim, rank, pooled) + _PER_AGENT_ID * group_size + _OVERHEAD


def max_membership_bytes(agents: int, hosted: int = 1) -> int:
    """The largest message with the members of an epoch of secure sums: names, keys, and neighbours' proofs.

    Args:
        agents: of the run's specification.
        hosted: members of the session that it goes to; more than 1 at a relay, which passes on the proofs of all
            their neighbours.
    """
    members = 1 << capacity_bits_of(agents)
    degree = degree_of(members)
    proofs = degree * (MAX_CERTIFICATES_BYTES + MAX_SIGNATURE_BYTES + _PER_MEMBER)
    if hosted > 1:
        proofs += min(members, hosted * degree) * _PER_PROOF
    return members * (_PER_AGENT_ID + _PER_MEMBER) + proofs


def max_offer_bytes(agents: int) -> int:
    """Of the members and proofs in the largest join of a relay, with all agents of the run.

    Args:
        agents: of the run's specification.
    """
    return (1 << capacity_bits_of(agents)) * (_PER_AGENT_ID + _PER_MEMBER + _PER_PROOF)


_RECALLED_BYTES = 4 << 20


def recalled_rounds(feature_dim: int, rank: int) -> int:
    """How many past rounds one answer holds at most; 1 or more."""
    return max(1, _RECALLED_BYTES // _recalled_bytes(feature_dim, rank))


def max_recalled_bytes(feature_dim: int, rank: int) -> int:
    """The largest answer with past rounds of a run."""
    return recalled_rounds(feature_dim, rank) * _recalled_bytes(feature_dim, rank) + _OVERHEAD


def _recalled_bytes(feature_dim: int, rank: int) -> int:
    """A basis and the covariance of the heads in a message, with what stands around them."""
    return 8 * (feature_dim * rank + rank * rank) + 128


_AHEAD_BYTES = 4 << 20
_MOST_ROUNDS_AHEAD = 64


def rounds_ahead(feature_dim: int, rank: int) -> int:
    """How many announced rounds may not be on the coordinator's disk yet; 1 to 64.

    An agent keeps a gradient and a basis of each, 4 MiB of either at most where there are several. What is pooled
    is not counted: of 64 rounds in a row at most 16 have it.
    """
    return max(1, min(_MOST_ROUNDS_AHEAD, _AHEAD_BYTES // (8 * feature_dim * rank)))


KEEPALIVE_SECONDS = 20
KEEPALIVE_TIMEOUT_SECONDS = 10
HANDSHAKE_SECONDS = 10
"""A connection over which HTTP/2 (with TLS: and TLS) is not spoken by then is closed."""
IDLE_SECONDS = 10
"""A connection without a call is closed after this time; agents always have one."""

_COMMON_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)


def server_options(
    message_bytes: int, connections: int, streams: int, *, answer_bytes: int = 0
) -> list[tuple[str, int]]:
    """Channel arguments of the server; its tolerance for pings matches what `client_options` sends.

    gRPC ignores an argument whose name it does not know; the names are those of its `channel_arg_names.h`, which
    are not always like its macros: that of the ping interval has no `recv`.

    Args:
        message_bytes: of the largest message.
        connections: how many may be open; the next one is closed at once.
        streams: how many one connection may carry; agents of one process may share it.
        answer_bytes: of the largest message that it sends, where that is larger.
    """
    return [
        *_COMMON_OPTIONS,
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.max_concurrent_streams", streams),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS * 1000),
        ("grpc.max_connection_idle_ms", IDLE_SECONDS * 1000),
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_SECONDS * 1000 // 2),
        ("grpc.max_receive_message_length", message_bytes),
        ("grpc.max_send_message_length", max(message_bytes, answer_bytes)),
        ("grpc.so_reuseport", 0),
    ]


def client_options(message_bytes: int) -> list[tuple[str, int]]:
    """Channel arguments of an agent or an observer.

    A coordinator never compresses; without any decompressor no small message can unpack to a large one.
    """
    return [
        *_COMMON_OPTIONS,
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.max_receive_message_length", message_bytes),
        ("grpc.max_send_message_length", message_bytes),
        ("grpc.enable_retries", 0),
        # Channels to one address share their connection, and with it gRPC's own backoff: while that lasts, a new
        # channel answers with the old failure and tries nothing. The agent's backoff decides how often it tries, so
        # gRPC's is the shortest that it takes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 100),
    ]


LONGEST_DRAIN_SECONDS = 300.0
"""The longest that a coordinator which goes down may ask its agents to stay away; ours asks for a few seconds."""

NO_COMPRESSION = grpc.Compression.NoCompression
"""Dense floats do not compress; trying costs CPU."""
