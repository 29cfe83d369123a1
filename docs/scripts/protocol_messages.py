"""Writes docs/reference/protocol-messages.md from the comments of the .proto files: `make protos` calls it.

python docs/scripts/protocol_messages.py DESCRIPTORS OUTPUT

DESCRIPTORS is what protoc writes with --include_source_info: a FileDescriptorSet that holds the comments.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2 as pb

_HEAD = """\
# Messages of the protocol

Every service, message, enumeration and field of `cospan.rpc.v1`, from the comments of the `.proto` files.
How they are used in a run: [protocol](../protocol.md).
"""
_FieldType = pb.FieldDescriptorProto.Type
# Field numbers of descriptor.proto, of which the path of a comment is made.
_MESSAGE, _ENUM, _SERVICE, _PACKAGE = 4, 5, 6, 2
_FIELD, _NESTED, _ONEOF, _VALUE, _METHOD, _SYNTAX = 2, 3, 8, 2, 2, 12


class Comments:
    """The comments of one file, by the path of what they stand over."""

    def __init__(self, file: pb.FileDescriptorProto) -> None:
        self._texts = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}

    def at(self, *path: int) -> str:
        """The comment on one line; what would be Markdown in it is text, but for code between backticks."""
        parts = " ".join(self._texts.get(path, "").split()).replace("|", "\\|").split("`")
        parts[::2] = [part.replace("<", "&lt;").replace("*", "\\*") for part in parts[::2]]
        return "`".join(parts)


def written(descriptors: pb.FileDescriptorSet) -> str:
    """The whole page."""
    parts = [_HEAD]
    files = [file for file in descriptors.file if file.package == "cospan.rpc.v1"]
    for file in sorted(files, key=lambda file: (not file.service, file.name)):
        comments = Comments(file)
        parts.append(f"## {Path(file.name).name}\n")
        parts.append(f"{comments.at(_SYNTAX)}\n")
        for index, service in enumerate(file.service):
            parts.extend(_service(service, comments, index))
        for index, message in enumerate(file.message_type):
            parts.extend(_message(message, comments, (_MESSAGE, index), ""))
        for index, enum in enumerate(file.enum_type):
            parts.extend(_enum(enum, comments, (_ENUM, index), ""))
    return "\n".join(parts)


def _service(service: pb.ServiceDescriptorProto, comments: Comments, index: int) -> Iterator[str]:
    yield f"### {service.name}\n\n{comments.at(_SERVICE, index)}\n"
    yield "| method | request | response | |\n|---|---|---|---|"
    for number, method in enumerate(service.method):
        request, response = _link(method.input_type), _link(method.output_type)
        request = f"stream of {request}" if method.client_streaming else request
        response = f"stream of {response}" if method.server_streaming else response
        yield f"| `{method.name}` | {request} | {response} | {comments.at(_SERVICE, index, _METHOD, number)} |"
    yield ""


def _message(message: pb.DescriptorProto, comments: Comments, path: tuple[int, ...], prefix: str) -> Iterator[str]:
    name = f"{prefix}{message.name}"
    yield f"### {name}\n\n{comments.at(*path)}\n"
    if message.field:
        yield "| | field | type | |\n|---|---|---|---|"
    for number, field in enumerate(message.field):
        text = comments.at(*path, _FIELD, number)
        if field.HasField("oneof_index") and not field.proto3_optional:
            text = f"(one of `{message.oneof_decl[field.oneof_index].name}`) {text}"
        yield f"| {field.number} | `{field.name}` | {_type(field)} | {text} |"
    yield ""
    for number, oneof in enumerate(message.oneof_decl):
        if about := comments.at(*path, _ONEOF, number):
            yield f"`{oneof.name}`: {about}\n"
    for number, nested in enumerate(message.nested_type):
        yield from _message(nested, comments, (*path, _NESTED, number), f"{name}.")
    for number, enum in enumerate(message.enum_type):
        yield from _enum(enum, comments, (*path, _MESSAGE, number), f"{name}.")


def _enum(enum: pb.EnumDescriptorProto, comments: Comments, path: tuple[int, ...], prefix: str) -> Iterator[str]:
    yield f"### {prefix}{enum.name}\n\n{comments.at(*path)}\n"
    yield "| | value | |\n|---|---|---|"
    for number, value in enumerate(enum.value):
        yield f"| {value.number} | `{value.name}` | {comments.at(*path, _VALUE, number)} |"
    yield ""


def _type(field: pb.FieldDescriptorProto) -> str:
    named = field.type in {_FieldType.TYPE_MESSAGE, _FieldType.TYPE_ENUM}
    name = _link(field.type_name) if named else _FieldType.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == pb.FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _link(type_name: str) -> str:
    own = type_name.removeprefix(".cospan.rpc.v1.")
    if own == type_name:
        return f"`{type_name.removeprefix('.')}`"
    return f"[{own}](#{own.lower().replace('.', '')})"


if __name__ == "__main__":
    found = pb.FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes())
    Path(sys.argv[2]).write_text(written(found), encoding="utf-8")
