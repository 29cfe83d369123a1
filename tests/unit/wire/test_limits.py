"""The limits of messages: the largest one fits, and both ends have the same."""

import dataclasses
import mmap
from pathlib import Path

import numpy as np
import pytest
from codec_examples import JOIN, SPEC, STAMP, upload
from grpc._cython import cygrpc

from cospan.core.linalg.matrices import FactoredMatrix
from cospan.wire import limits
from cospan.wire import messages as m
from cospan.wire.codec.messages import (
    encode_agent_message,
    encode_coordinator_message,
)


@pytest.mark.parametrize(("d", "r", "agents"), [(1, 1, 1), (3, 2, 1), (96, 8, 1), (96, 8, 1000), (2000, 40, 50)])
def test_the_largest_messages_fit(d: int, r: int, agents: int) -> None:
    """A group's upload with r factors and names of full length; a welcome with texts of full length."""
    names = tuple(f"{index:064}" for index in range(agents))
    gradient = FactoredMatrix(left=np.ones((d, r)), right=np.ones((r, r)))
    largest = upload(gradient, moment=np.ones((r, r)), round=2**64 - 1, agent_ids=names)
    limit = limits.max_message_bytes(d, r, agents)
    assert len(encode_agent_message(largest).SerializeToString()) <= limit
    join = dataclasses.replace(JOIN, agent_ids=names, workload="€" * 256, feature_fingerprint="€" * 256)
    assert len(encode_agent_message(join).SerializeToString()) <= limit
    spec = dataclasses.replace(SPEC, feature_dim=d, rank=r, workload="€" * 256, feature_fingerprint="€" * 256)
    welcome = m.Welcome(STAMP, "t" * 128, spec, np.ones((d, r)), first_round=2**64 - 1, started=True)
    assert len(encode_coordinator_message(welcome).SerializeToString()) <= limit


def test_the_limit_is_not_far_above_what_is_needed() -> None:
    """It bounds what a stranger can make the coordinator allocate."""
    assert limits.max_message_bytes(96, 8) < 2 * 8 * 96 * 8 + 128 * 1024


def test_grpc_knows_every_channel_option() -> None:
    """It ignores others silently: a misspelt ping interval had agents of a slow run thrown out every minute."""
    with Path(cygrpc.__file__).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as library:
        options = dict(limits.server_options(1, 1, 1)) | dict(limits.client_options(1))
        assert [name for name in options if library.find(name.encode() + b"\0") < 0] == []


def test_channel_options_of_both_ends_match() -> None:
    """A client that pings more often than its server allows is thrown out with ENHANCE_YOUR_CALM."""
    server, client = dict(limits.server_options(1000, 50, 20)), dict(limits.client_options(1000))
    assert 2 * server["grpc.http2.min_ping_interval_without_data_ms"] <= client["grpc.keepalive_time_ms"]
    for name in ("grpc.max_receive_message_length", "grpc.max_send_message_length"):
        assert server[name] == client[name] == 1000
    assert server["grpc.so_reuseport"] == 0, "two coordinators on one port would share the agents"
    assert client["grpc.enable_retries"] == 0, "a retried call would hide a broken stream"
    assert (server["grpc.max_allowed_incoming_connections"], server["grpc.max_concurrent_streams"]) == (50, 20)
    assert len(limits.server_options(1, 1, 1)) == len(server)
    assert len(limits.client_options(1)) == len(client)
