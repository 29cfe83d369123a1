"""One fuzzed input is a conversation: which run, and what is said in it, message by message.

    byte 0                 which of `PLANS`
    then, for each turn:   1 byte who speaks and what happens first, 2 bytes length (little endian), the message

Whatever the bytes are, they are some conversation; so a fuzzer may do with them what it likes, and
`mutated_input` changes them with knowledge of what they mean.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from fuzz import relays, specimens
from fuzz.mutation import Mutator, mutated, shuffled
from fuzz.subjects import Agent, Coordinator, Subject, Value
from google.protobuf.message import Message

from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.rpc.v1 import run_pb2
from cospan.wire.codec.messages import encode_agent_message, encode_coordinator_message
from cospan.wire.codec.reports import decode_round_report, decode_run_report, encode_round_report, encode_run_report
from cospan.wire.codec.specification import decode_specification, encode_specification

MOST_TURNS = 16
_MOST_LENGTH = 2**16 - 1
_RUNS = tuple(specimens.SPECIFICATIONS.values())


@dataclass(frozen=True, slots=True)
class Plan:
    """How to begin with a subject, and which messages it is given.

    Attributes:
        name: for people.
        kind: of the messages.
        begin: makes the subject.
        specimen: a valid message.
        in_turn: a conversation without trouble: valid messages, each with who says it.
    """

    name: str
    kind: type[Message]
    begin: Callable[[], Subject]
    specimen: Callable[[random.Random], Message]
    in_turn: Callable[[random.Random], list[tuple[int, Message]]]


def _coordinator(name: str) -> Plan:
    spec = specimens.SPECIFICATIONS[name]
    return Plan(
        f"the coordinator of a run: {name}",
        pb.CollaborateRequest,
        lambda: Coordinator(spec),
        lambda rng: encode_agent_message(specimens.agent_message(spec, rng)),
        lambda rng: [(who, encode_agent_message(said)) for who, said in specimens.rounds_in_turn(spec, rng)],
    )


def _agent(name: str) -> Plan:
    spec = specimens.SPECIFICATIONS[name]
    return Plan(
        f"an agent in a run: {name}",
        pb.CollaborateResponse,
        lambda: Agent(spec),
        lambda rng: encode_coordinator_message(specimens.coordinator_message(spec, rng)),
        lambda rng: [(0, encode_coordinator_message(told)) for told in specimens.told_in_turn(spec, rng)],
    )


def _below(name: str) -> Plan:
    plan, spec = _coordinator(name), specimens.SPECIFICATIONS[name]
    return replace(plan, name=f"a relay and its agents: {name}", begin=lambda: relays.Below(spec))


def _above(name: str) -> Plan:
    plan, spec = _agent(name), specimens.SPECIFICATIONS[name]
    return replace(plan, name=f"a relay and its coordinator: {name}", begin=lambda: relays.Above(spec))


def _value(kind: type[Message], decode: Any, encode: Any, specimen: Callable[[random.Random], Any]) -> Plan:
    return Plan(
        f"a decoder: {kind.DESCRIPTOR.name}",
        kind,
        lambda: Value(kind, decode, encode),
        lambda rng: encode(specimen(rng)),
        lambda rng: [(0, encode(specimen(rng))) for _ in range(rng.randint(1, 3))],
    )


PLANS: tuple[Plan, ...] = (
    *(_coordinator(name) for name in specimens.SPECIFICATIONS),
    *(_agent(name) for name in ("plain", "warm-up", "full rank")),
    _value(run_pb2.RunSpecification, decode_specification, encode_specification, lambda rng: rng.choice(_RUNS)),
    _value(
        pb.GetRunResponse,
        decode_run_report,
        encode_run_report,
        lambda rng: specimens.run_report(rng.choice(_RUNS), rng),
    ),
    _value(
        pb.WatchRoundsResponse,
        decode_round_report,
        lambda report: encode_round_report(report, include_basis=True),
        lambda rng: specimens.round_report(rng.choice(_RUNS), rng),
    ),
    _agent("secure sums"),
    *(_below(name) for name in ("plain", "secure sums", "secure sums of a posterior")),
    _above("secure sums"),
)
Turn = tuple[int, bytes]


def read(data: bytes) -> tuple[Plan, list[Turn]]:
    """The conversation that these bytes stand for."""
    turns: list[Turn] = []
    at = 1
    while at < len(data) and len(turns) < MOST_TURNS:
        length = int.from_bytes(data[at + 1 : at + 3], "little")
        turns.append((data[at], data[at + 3 : at + 3 + length]))
        at += 3 + length
    return PLANS[(data[0] if data else 0) % len(PLANS)], turns


def written(number: int, turns: list[Turn]) -> bytes:
    """The bytes of a conversation about the subject of this number."""
    parts = [bytes([number])]
    for first, message in turns:
        held = message[:_MOST_LENGTH]
        parts.append(bytes([first]) + len(held).to_bytes(2, "little") + held)
    return b"".join(parts)


def play(data: bytes) -> int:
    """Holds the conversation; the number of messages in it. Whatever comes out of here is a finding."""
    plan, turns = read(data)
    subject = plan.begin()
    with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at
        for first, message in turns:
            subject.hear(first, message)
    return len(turns)


def fresh_input(rng: random.Random) -> bytes:
    """A conversation of valid messages."""
    number = rng.randrange(len(PLANS))
    plan = PLANS[number]
    turns = [(who, message.SerializeToString()) for who, message in plan.in_turn(rng)]
    while rng.random() < 0.5:
        turns.insert(rng.randrange(len(turns) + 1), _fresh_turn(plan, rng))
    return written(number, turns)


def mutated_input(data: bytes, rng: random.Random, of_bytes: Mutator | None = None) -> bytes:
    """A conversation like this one."""
    plan, turns = read(data)
    if not turns or rng.random() < 0.2:
        turns = shuffled(turns, lambda: _fresh_turn(plan, rng), MOST_TURNS, rng)
    if rng.random() < 0.05:  # the same messages to another peer
        plan = rng.choice(PLANS)
    at = rng.randrange(len(turns))
    first, message = turns[at]
    if rng.random() < 0.2:
        first = rng.randrange(256)
    turns[at] = (first, mutated(message, plan.kind, rng, of_bytes))
    return written(PLANS.index(plan), turns)


def _fresh_turn(plan: Plan, rng: random.Random) -> Turn:
    first = rng.randrange(256) if rng.random() < 0.3 else rng.randrange(4)
    return first, plan.specimen(rng).SerializeToString()
