"""The protocol's files: every element has a comment, names follow Buf's STANDARD rules, and numbers only grow.

What exists is read from the generated descriptors; where the comments stand, from the text of the `.proto` files.
The scan below finds every element that the descriptors know, or a test fails.
"""

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

from cospan.rpc.v1 import matrix_pb2

PACKAGE = "cospan.rpc.v1"
DIRECTORY = Path(matrix_pb2.__file__).parent
PROTOS = sorted(DIRECTORY.glob("*.proto"))
FROZEN = Path(__file__).with_name("proto_fields.json")
_TYPE_NAMES = {value: name.removeprefix("TYPE_").lower() for name, value in FieldDescriptorProto.Type.items()}


def described(proto: Path) -> FileDescriptorProto:
    """The descriptor of a file, from the code generated from it."""
    generated = importlib.import_module(f"{PACKAGE}.{proto.stem}_pb2")
    message = FileDescriptorProto()
    generated.DESCRIPTOR.CopyToProto(message)
    return message


FILES = {proto.name: described(proto) for proto in PROTOS}


# What there is --------------------------------------------------------------------------------------------------


def synthetic(message: Any) -> set[int]:
    """Indices of the oneofs that stand for `optional`; no file names them."""
    return {field.oneof_index for field in message.field if field.proto3_optional}


def of_message(message: Any, scope: str) -> Iterator[tuple[str, str]]:
    name = f"{scope}.{message.name}"
    yield "message", name
    for field in message.field:
        yield "field", f"{name}.{field.name}"
    for index, oneof in enumerate(message.oneof_decl):
        if index not in synthetic(message):
            yield "oneof", f"{name}.{oneof.name}"
    for enum in message.enum_type:
        yield from of_enum(enum, name)
    for nested in message.nested_type:
        yield from of_message(nested, name)


def of_enum(enum: Any, scope: str) -> Iterator[tuple[str, str]]:
    name = f"{scope}.{enum.name}"
    yield "enum", name
    for value in enum.value:
        yield "value", f"{name}.{value.name}"


def of_file(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    """(kind, full name) of every element."""
    for message in file.message_type:
        yield from of_message(message, file.package)
    for enum in file.enum_type:
        yield from of_enum(enum, file.package)
    for service in file.service:
        yield "service", f"{file.package}.{service.name}"
        for method in service.method:
            yield "method", f"{file.package}.{service.name}.{method.name}"


# Where it stands in the text ------------------------------------------------------------------------------------

_DECLARATIONS = (
    (re.compile(r"(message|enum|service|oneof)\s+(\w+)\s*\{"), None),
    (re.compile(r"(rpc)\s+(\w+)\s*\("), "method"),
    (re.compile(r"(?:optional\s+|repeated\s+)?(map<[^>]*>|[\w.]+)\s+(\w+)\s*=\s*\d+\s*[;\[]"), "field"),
    (re.compile(r"()(\w+)\s*=\s*-?\d+\s*[;\[]"), "value"),
)


def without_comment(line: str) -> str:
    return re.sub(r"\"(?:[^\"\\]|\\.)*\"", '""', line).split("//")[0].strip()


def in_text(proto: Path) -> dict[tuple[str, str], bool]:
    """(kind, full name) → whether a comment stands right above, of every element that is declared."""
    found: dict[tuple[str, str], bool] = {}
    scopes: list[str] = [PACKAGE]
    commented = False
    for line in proto.read_text(encoding="utf-8").splitlines():
        code = without_comment(line)
        if not code:
            commented = line.strip().startswith("//") and len(line.strip().strip("/ ")) > 2
            continue
        name = None
        for pattern, kind in _DECLARATIONS:
            if match := pattern.match(code):
                name = match[2]
                scope = ".".join(filter(None, scopes))
                found[kind or match[1], f"{scope}.{name}"] = commented
                break
        is_oneof = code.startswith("oneof")
        for brace in re.findall(r"[{}]", code):
            if brace == "{":
                scopes.append("" if is_oneof else str(name))  # a oneof opens no scope of names
            else:
                scopes.pop()
        commented = False
    assert scopes == [PACKAGE], f"{proto.name}: the braces do not match"
    return found


def test_there_are_protos_and_each_has_its_generated_code() -> None:
    assert {"coordinator_service.proto", "matrix.proto", "run.proto"} <= set(FILES)
    assert {path.name.removesuffix("_pb2.py") for path in DIRECTORY.glob("*_pb2.py")} == {p.stem for p in PROTOS}


@pytest.mark.parametrize("proto", PROTOS, ids=lambda proto: proto.stem)
def test_text_and_generated_code_have_the_same_elements(proto: Path) -> None:
    """Otherwise the generated code is stale, or the scan of the comments has overlooked something."""
    assert sorted(in_text(proto)) == sorted(of_file(FILES[proto.name]))


@pytest.mark.parametrize("proto", PROTOS, ids=lambda proto: proto.stem)
def test_every_element_has_a_comment(proto: Path) -> None:
    assert not [f"{kind} {name}" for (kind, name), commented in in_text(proto).items() if not commented]
    assert proto.read_text(encoding="utf-8").startswith("// "), "the file itself says what it is"


# Buf's STANDARD rules -------------------------------------------------------------------------------------------

PASCAL = re.compile(r"[A-Z][A-Za-z0-9]*")
LOWER_SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
UPPER_SNAKE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
_CASE = {
    "message": PASCAL,
    "enum": PASCAL,
    "service": PASCAL,
    "method": PASCAL,
    "field": LOWER_SNAKE,
    "oneof": LOWER_SNAKE,
    "value": UPPER_SNAKE,
}


def upper_snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper()


def all_enums() -> Iterator[Any]:
    for file in FILES.values():
        yield from file.enum_type
        waiting = list(file.message_type)
        while waiting:
            message = waiting.pop()
            yield from message.enum_type
            waiting += message.nested_type


ALL_ENUMS = {enum.name: enum for enum in all_enums()}
ALL_METHODS = {
    f"{service.name}.{method.name}": method
    for file in FILES.values()
    for service in file.service
    for method in service.method
}


@pytest.mark.parametrize("name", FILES)
def test_package_and_folder_match(name: str) -> None:
    file = FILES[name]
    assert file.syntax == "proto3"
    assert file.package == PACKAGE
    assert re.fullmatch(r"([a-z][a-z0-9]*\.)+v[0-9]+", file.package)
    assert file.name == f"{PACKAGE.replace('.', '/')}/{name}"
    assert DIRECTORY.parts[-3:] == tuple(PACKAGE.split("."))
    assert LOWER_SNAKE.fullmatch(name.removesuffix(".proto"))
    assert not file.public_dependency
    assert not file.weak_dependency


@pytest.mark.parametrize("name", FILES)
def test_names_are_spelt_as_buf_asks(name: str) -> None:
    assert not [
        element for kind, element in of_file(FILES[name]) if not _CASE[kind].fullmatch(element.split(".")[-1])
    ]


@pytest.mark.parametrize("name", ALL_ENUMS)
def test_enums_begin_with_unspecified_and_prefix_their_values(name: str) -> None:
    enum, prefix = ALL_ENUMS[name], upper_snake(name)
    assert (enum.value[0].name, enum.value[0].number) == (f"{prefix}_UNSPECIFIED", 0)
    assert all(value.name.startswith(f"{prefix}_") for value in enum.value)
    assert len({value.number for value in enum.value}) == len(enum.value)
    assert not enum.options.allow_alias


def test_services_are_called_service() -> None:
    assert all(service.name.endswith("Service") for file in FILES.values() for service in file.service)
    assert len(ALL_METHODS) >= 4


@pytest.mark.parametrize("name", ALL_METHODS)
def test_every_rpc_has_its_own_request_and_response(name: str) -> None:
    method = ALL_METHODS[name]
    types = [kind for other in ALL_METHODS.values() for kind in (other.input_type, other.output_type)]
    assert method.input_type == f".{PACKAGE}.{method.name}Request"
    assert method.output_type == f".{PACKAGE}.{method.name}Response"
    assert types.count(method.input_type) == types.count(method.output_type) == 1


def test_matrices_are_bytes() -> None:
    """A `repeated double` is several times slower to read, and says nothing of its shape."""
    floats = {FieldDescriptorProto.TYPE_DOUBLE, FieldDescriptorProto.TYPE_FLOAT}
    for file in FILES.values():
        for message in file.message_type:
            for field in message.field:
                repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
                assert not (repeated and field.type in floats), f"{message.name}.{field.name}"


# Numbers only grow ----------------------------------------------------------------------------------------------


def type_of(field: FieldDescriptorProto, message: Any) -> str:
    """Type as written, with `repeated`, `optional` or the oneof that the field is in."""
    name = field.type_name.removeprefix(".") or _TYPE_NAMES[field.type]
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    if field.proto3_optional:
        return f"optional {name}"
    if field.HasField("oneof_index"):
        return f"{name} in oneof {message.oneof_decl[field.oneof_index].name}"
    return name


def numbers_of_message(message: Any, scope: str) -> Iterator[tuple[str, str]]:
    name = f"{scope}.{message.name}"
    for field in message.field:
        yield f"{name}.{field.name}", f"{type_of(field, message)} = {field.number}"
    for enum in message.enum_type:
        yield from ((f"{name}.{enum.name}.{value.name}", str(value.number)) for value in enum.value)
    for nested in message.nested_type:
        yield from numbers_of_message(nested, name)


def numbers_of_file(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    for message in file.message_type:
        yield from numbers_of_message(message, file.package)
    for enum in file.enum_type:
        yield from ((f"{file.package}.{enum.name}.{value.name}", str(value.number)) for value in enum.value)
    for service in file.service:
        for method in service.method:
            ends = [
                "stream " * streams + kind.removeprefix(".")
                for streams, kind in (
                    (method.client_streaming, method.input_type),
                    (method.server_streaming, method.output_type),
                )
            ]
            yield f"{file.package}.{service.name}.{method.name}", " → ".join(ends)


def numbers() -> dict[str, str]:
    """Every field, enum value and method, and what may never change of it."""
    return dict(sorted(pair for file in FILES.values() for pair in numbers_of_file(file)))


def changes(frozen: dict[str, str], current: dict[str, str]) -> list[str]:
    """What is gone or no longer what it was."""
    return [
        f"{name} was `{was}` and is `{current.get(name, 'gone')}`"
        for name, was in frozen.items()
        if current.get(name) != was
    ]


def test_nothing_that_was_published_has_changed() -> None:
    changed = changes(json.loads(FROZEN.read_text(encoding="utf-8")), numbers())
    assert not changed, (
        "older agents and coordinators would misread each other. Give a new field a new number and leave the old "
        f"one where it is, marked `deprecated`: {changed}"
    )


def test_everything_new_is_frozen() -> None:
    new = set(numbers()) - set(json.loads(FROZEN.read_text(encoding="utf-8")))
    assert not new, f"run `python tests/contract/{Path(__file__).name}`, which adds to {FROZEN.name}: {sorted(new)}"


def test_a_number_is_used_once_in_a_message() -> None:
    """Also where a frozen field was taken out of the `.proto` and its number given to another."""
    used: dict[tuple[str, str], str] = {}
    for name, what in json.loads(FROZEN.read_text(encoding="utf-8")).items():
        if " = " in what:
            key = name.rpartition(".")[0], what.rpartition(" = ")[2]
            assert key not in used, f"{name} and {used[key]} have one number"
            used[key] = name


def test_the_comparison_sees_every_kind_of_change() -> None:
    frozen = {"M.a": "string = 1", "M.b": "double = 2", "E.X": "3"}
    assert changes(frozen, frozen | {"M.new": "bool = 3"}) == []
    for name, what in (("M.a", "string = 4"), ("M.b", "float = 2"), ("E.X", "4")):
        assert changes(frozen, frozen | {name: what}) == [f"{name} was `{frozen[name]}` and is `{what}`"]
    assert len(changes(frozen, {})) == 3


def freeze() -> None:
    """Adds what is new to the frozen list. What has changed is not taken over."""
    frozen = json.loads(FROZEN.read_text(encoding="utf-8")) if FROZEN.exists() else {}
    if changed := changes(frozen, numbers()):
        raise SystemExit(f"these may not change: {changed}")
    FROZEN.write_text(json.dumps(numbers(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    freeze()
