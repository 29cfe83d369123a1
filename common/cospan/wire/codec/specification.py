"""Run specifications as messages, and back.

The messages `RunSpecification` and `Method` have a field for each field of the dataclasses, under the same name,
and the values of their enumerations are named after the members. So nothing here names a field.
"""

from dataclasses import fields
from enum import Enum
from typing import Any

from google.protobuf.message import Message

from cospan.core.method import Method
from cospan.core.specification import MAX_NAME, RunSpecification
from cospan.rpc.v1 import run_pb2
from cospan.wire.codec.checks import bounded_text, from_enum, numbers_of, require


def encode_specification(spec: RunSpecification) -> run_pb2.RunSpecification:
    """A specification as its message."""
    return run_pb2.RunSpecification(**_encoded(spec, run_pb2.RunSpecification))


def decode_specification(message: run_pb2.RunSpecification) -> RunSpecification:
    """A specification from its message.

    Raises:
        InvalidMessageError: a value is out of its range; the text names every one.
    """
    spec = RunSpecification(**_decoded(message, RunSpecification, ""))
    problems = spec.problems()
    require(not problems, "; ".join(problems))
    return spec


def _encoded(values: RunSpecification | Method, message: type[Message]) -> dict[str, Any]:
    """The fields of a message."""
    found = {}
    for field in fields(values):
        value = getattr(values, field.name)
        if isinstance(value, Enum):
            value = numbers_of(type(value), message.DESCRIPTOR.fields_by_name[field.name].enum_type)[value]
        elif isinstance(value, Method):
            value = run_pb2.Method(**_encoded(value, run_pb2.Method))
        found[field.name] = value
    return found


def _decoded(message: Message, kind: type[RunSpecification | Method], prefix: str) -> dict[str, Any]:
    """The fields of a dataclass; their ranges are still to be checked."""
    found = {}
    for field in fields(kind):
        name, value = f"{prefix}{field.name}", getattr(message, field.name)
        if field.type is Method:
            value = Method(**_decoded(value, Method, f"{name}."))
        elif isinstance(field.type, type) and issubclass(field.type, Enum):
            numbers = numbers_of(field.type, message.DESCRIPTOR.fields_by_name[field.name].enum_type)
            value = from_enum(numbers, value, name)
        elif field.type is str:
            value = bounded_text(value, name, MAX_NAME)
        found[field.name] = value
    return found
