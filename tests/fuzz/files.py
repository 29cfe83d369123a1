"""Files of a run that are not what they were: every reader gives what it can read, or says RunFileError."""

import io
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.mutation import changed_bytes
from runs import RINGS, announced, ring_site, specification
from stored import stored_run

from cospan.client.files.group_file import GROUP
from cospan.client.files.result_file import resume, save_result
from cospan.client.files.state_file import ONE_AGENT, StateFile
from cospan.client.learning.group_blocks import GroupSites
from cospan.client.learning.group_learner import GroupLearner
from cospan.client.learning.site_learner import SiteLearner
from cospan.core.method import full_history, practical
from cospan.server.storage.reader import read_basis, read_reports, read_saved, read_state
from cospan.wire.errors import RunFileError
from cospan.wire.files.npz import load_npz, save_npz
from cospan.wire.files.spec_file import load_spec, to_toml

_SPEC = replace(
    specification(replace(full_history(3), warm_up_rounds=3), feature_fingerprint="map-1", rounds=9),
    workload="rings",
)
_GROUP_SPEC = replace(_SPEC, method=practical(3))
_ROUNDS = 2
"""In the middle of the warm-up: so a file has everything that one may have."""
_NUMBERS = ("nan", "inf", "-inf", "-1", "0", "1", "1e400", "-0.0", "0x7fffffffffffffffffff")
_LONG = ("1" + "0" * 400, "1" + "0" * 5000, "0x" + "f" * 5000)
_TEXTS = ('"x"', '""', '"\\u0000"', '"all"', '"quorum"', "x", "'''", "=", "\ufeff")
_OTHERS = ("true", "[]", "{}", "[1, [2]]", "{a = 1}", "1979-05-27", "07:32:00", "[" * 2000)
_DTYPES = ("f8", "f4", "i8", "u1", "c16", "?", "U5", "S3", "M8[s]", "m8[D]", ">f8", "i4")
_SHAPES: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (2,), (3,), (4, 2), (4, 4), (2, 2, 2), (0, 3), (7,))


@dataclass(frozen=True, slots=True)
class Reader:
    """A kind of file.

    Attributes:
        name: of the file.
        make: writes a good one.
        change: makes other contents from good ones.
        read: reads one in every way there is.
    """

    name: str
    make: Callable[[Path], None]
    change: Callable[[bytes, random.Random], bytes]
    read: Callable[[Path], None]


def run_files(folder: Path, count: int, seed: int) -> list[str]:
    """`count` files of each kind; what was found."""
    return [f"{reader.name}: {finding}" for reader in READERS for finding in misread(reader, folder, count, seed)]


def misread(reader: Reader, folder: Path, count: int, seed: int) -> Iterator[str]:
    """What a reader does not take as it should."""
    rng = random.Random(f"{seed}-{reader.name}")
    good = folder / reader.name / "good"
    good.mkdir(parents=True)
    reader.make(good / reader.name)
    contents = (good / reader.name).read_bytes()
    reader.read(good / reader.name)
    for number in range(count):
        path = folder / reader.name / reader.name
        path.write_bytes(reader.change(contents, rng))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                reader.read(path)
        except RunFileError:
            continue
        except Exception as finding:
            kept = path.with_name(f"found-{number}-{reader.name}")
            path.rename(kept)
            yield f"{type(finding).__name__}: {finding}; {kept}"


# Texts ----------------------------------------------------------------------------------------------------------


def _make_spec(path: Path) -> None:
    path.write_text(to_toml(_SPEC), encoding="utf-8")


def _changed_text(contents: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return changed_bytes(contents, rng)
    lines = contents.decode().splitlines()
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        key = lines[at].partition("=")[0]
        match rng.randrange(4):
            case 0:
                del lines[at]
            case 1:
                lines.insert(rng.randrange(len(lines)), lines[at])
            case _:
                lines[at] = f"{key}= {rng.choice(_NUMBERS + _LONG + _TEXTS + _OTHERS)}"
    return "\n".join(lines or [""]).encode()


# Arrays ---------------------------------------------------------------------------------------------------------


def _learner() -> SiteLearner:
    return SiteLearner(ring_site(1, 1), _SPEC, name="site-1", index=1)


def _make_result(path: Path) -> None:
    learner = _learner()
    for number in range(_ROUNDS):
        learner.learn(number, _SPEC.initial_basis())
    save_result(path, learner, run_id="run-1")


def _read_result(path: Path) -> None:
    """As a reader that asks for it by name, and as an agent that finds it in place of its own."""
    try:
        resume(_learner(), path, run_id="run-1")
    finally:
        StateFile(path, _learner(), ONE_AGENT, run_id="run-1").take_up()
        _remove_aside(path)


def _group() -> GroupLearner:
    sites = GroupSites.of(RINGS, (0, 1), _GROUP_SPEC.feature_dim, 1)
    return GroupLearner(sites, _GROUP_SPEC, names=("site-0", "site-1"), with_baseline=True)


def _make_group(path: Path) -> None:
    group = _group()
    for number in range(_ROUNDS):
        group.learn(number, *announced(_GROUP_SPEC))
    save_npz(path, **GROUP.contents(group, "run-1"))


def _read_group(path: Path) -> None:
    try:
        GROUP.resume(_group(), path, "run-1")
    finally:
        StateFile(path, _group(), GROUP, run_id="run-1").take_up()
        _remove_aside(path)


def _remove_aside(path: Path) -> None:
    for aside in path.parent.glob(f"{path.stem}.*{path.suffix}"):
        aside.unlink()


def _changed_arrays(contents: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.2:
        return changed_bytes(contents, rng)
    with np.load(io.BytesIO(contents)) as archive:
        values: dict[str, Any] = {name: archive[name] for name in archive.files}
    for _ in range(rng.randint(1, 2)):
        name = rng.choice(list(values))
        match rng.randrange(3):
            case 0:
                del values[name]
            case 1:
                values[name] = _odd_array(rng)
            case _:
                values[name] = _odd_entry(values[name], rng)
    changed = io.BytesIO()
    np.savez(changed, **values)
    return changed.getvalue()


def _odd_array(rng: random.Random) -> np.ndarray:
    shape, kind = rng.choice(_SHAPES), np.dtype(rng.choice(_DTYPES))
    size = int(np.prod(shape)) * kind.itemsize
    if kind.kind == "U":
        return np.full(shape, rng.choice(("", "nan", "{}", "[[")))
    data = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
    return np.frombuffer(data, kind).reshape(shape) if size else np.zeros(shape, kind)


def _odd_entry(values: np.ndarray, rng: random.Random) -> np.ndarray:
    """The same with one entry that is not as it was; a text with some of its letters changed."""
    if values.dtype.kind == "U":
        text = changed_bytes(str(values).encode(), rng).decode(errors="replace").replace("\0", "")
        return np.array(text)
    changed = values.copy()
    if changed.size:
        odd = rng.choice((np.nan, np.inf, -1.0, 0.0, 1e300, 2.0**62, 0.5, 7.0))
        with np.errstate(invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            changed.flat[rng.randrange(changed.size)] = np.array(odd).astype(changed.dtype)
    return changed


# Stores ---------------------------------------------------------------------------------------------------------


def _make_store(path: Path) -> None:
    made = stored_run(path.parent, 5, checkpoint_interval=2)
    made.rename(path)


def _changed_store(contents: bytes, rng: random.Random) -> bytes:
    changed = bytearray(contents)
    for _ in range(rng.choice((1, 2, 8))):
        at = rng.choice((rng.randrange(100), rng.randrange(len(changed))))
        changed[at] = rng.choice((0, 255, rng.randrange(256)))
    return bytes(changed if rng.random() < 0.9 else changed[: rng.randrange(len(changed))])


def _read_store(path: Path) -> None:
    problems = []
    for read in (lambda: read_state(path, check=True), lambda: read_saved(path), lambda: read_basis(path)):
        try:
            read()
        except RunFileError as refusal:
            problems.append(refusal)
    with closing(read_reports(path)) as reports:
        for _ in reports:
            pass
    if problems:
        raise problems[0]


READERS = (
    Reader("spec.toml", _make_spec, _changed_text, lambda path: load_spec(path) and None),
    Reader("site-1.npz", _make_result, _changed_arrays, _read_result),
    Reader("group.npz", _make_group, _changed_arrays, _read_group),
    Reader("basis.npz", _make_result, _changed_arrays, lambda path: load_npz(path, "a basis") and None),
    Reader("coordinator.sqlite", _make_store, _changed_store, _read_store),
)
