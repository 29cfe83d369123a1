"""Files of a run: specifications as TOML and arrays as npz, there and back, and what a damaged one says."""

import dataclasses
import math
import os
import stat
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from values import same

from cospan.core.method import PRESETS, HeadUpdate, Method
from cospan.core.specification import RunSpecification
from cospan.wire.errors import RunFileError
from cospan.wire.files.npz import Pieces, load_npz, save_npz
from cospan.wire.files.safe_files import writing_whole
from cospan.wire.files.spec_file import FORMAT, from_toml, load_spec, to_toml

SPEC = RunSpecification(
    workload='a "quoted" name \u00e9\u4e16\\',
    feature_dim=6,
    rank=2,
    agents=3,
    rounds=10,
    seed=2**63 - 1,
    method=Method(
        steps_per_round=5,
        head_update=HeadUpdate.EVERY_STEP,
        head_step=math.nextafter(0.1, 1.0),
        gain_step=1e-300,
        head_radius=math.inf,
        basis_step=5e-324,
        implicit_head_step=True,
    ),
    feature_fingerprint="tabular-0123",
    session_timeout_seconds=4.5,
)
MINIMAL = """
format = "cospan-spec-1"
workload = "w"
feature_dim = 6
rank = 2
agents = 3
rounds = 10
seed = 1
[method]
steps_per_round = 5
head_update = "end-of-round"
head_step = 1
gain_step = 0.1
head_radius = inf
basis_step = 0
"""


# Specifications -------------------------------------------------------------------------------------------------


def test_a_specification_comes_back_from_its_text() -> None:
    back = from_toml(to_toml(SPEC), name="spec.toml")
    assert back == SPEC
    assert back.digest() == SPEC.digest()


@given(
    st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), max_size=256),
    st.floats(0.0, 1e300, exclude_min=True),
    st.floats(0.0, 1e300),
    st.sampled_from(sorted(PRESETS)),
    st.integers(0, 2**63 - 1),
)
def test_every_digit_and_every_printable_character_comes_back(
    workload: str, head_step: float, basis_step: float, preset: str, seed: int
) -> None:
    method = dataclasses.replace(PRESETS[preset](3), head_step=head_step, basis_step=basis_step)
    spec = dataclasses.replace(SPEC, workload=workload, seed=seed, method=method)
    back = from_toml(to_toml(spec), name="spec.toml")
    assert back == spec
    assert back.digest() == spec.digest()


def test_fields_with_a_default_may_be_left_out_and_whole_numbers_may_stand_for_floats() -> None:
    spec = from_toml(MINIMAL, name="spec.toml")
    assert spec.session_timeout_seconds == 5.0
    assert not spec.method.preconditioned
    assert type(spec.method.head_step) is float
    assert spec.problems() == []


REFUSED = {
    "is not TOML": ("agents = 3", "agents = "),
    "format = 'cospan-spec-9'": ('format = "cospan-spec-1"', 'format = "cospan-spec-9"'),
    "format = None": ('format = "cospan-spec-1"\n', ""),
    "colour = 'red', which is no field": ("agents = 3", 'agents = 3\ncolour = "red"'),
    "method.momentum = 0.9, which is no field": ("gain_step = 0.1", "gain_step = 0.1\nmomentum = 0.9"),
    "lacks rank": ("rank = 2\n", ""),
    "lacks method.gain_step": ("gain_step = 0.1\n", ""),
    "rank = 2.0; it must be a whole number": ("rank = 2", "rank = 2.0"),
    "agents = True; it must be a whole number": ("agents = 3", "agents = true"),
    "workload = 7; it must be a text in quotes": ('workload = "w"', "workload = 7"),
    "method.gain_step = '0.1'; it must be a number": ("gain_step = 0.1", 'gain_step = "0.1"'),
    "method.preconditioned = 1; it must be true or false": (
        "gain_step = 0.1",
        "gain_step = 0.1\npreconditioned = 1",
    ),
    "method.head_update = 'never'; it must be 'end-of-round' or 'every-step'": ("end-of-round", "never"),
    "participation = 'some'; it must be 'all'": ("rank = 2", 'rank = 2\nparticipation = "some"'),
    "is nested too deeply for a run specification": ("agents = 3", "agents = " + "[" * 2000),
    "is not TOML: Exceeds the limit": ("agents = 3", "agents = 1" + "0" * 5000),
    "a number that no field of a run specification takes: int too large": (
        "gain_step = 0.1",
        "gain_step = 1" + "0" * 400,
    ),
    "a number that no field of a run specification takes: Exceeds the limit": (
        "agents = 3",
        "agents = 0x" + "f" * 5000,
    ),
    "a number that no field of a run specification takes: Exceeds": (
        'format = "cospan-spec-1"',
        "format = 0x" + "f" * 5000,
    ),
    "rank is 7; it must be 1 to feature_dim = 6; gain_step is 2.0": (
        "rank = 2\nagents = 3\nrounds = 10\nseed = 1\n[method]",
        "rank = 7\nagents = 3\nrounds = 10\nseed = 1\n[method]",
    ),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_a_wrong_specification_names_the_file_the_field_and_what_is_allowed(sentence: str) -> None:
    old, new = REFUSED[sentence]
    assert old in MINIMAL
    text = MINIMAL.replace(old, new)
    if "gain_step is 2.0" in sentence:
        text = text.replace("gain_step = 0.1", "gain_step = 2.0")
    with pytest.raises(RunFileError) as error:
        from_toml(text, name="my-spec.toml")
    assert str(error.value).startswith("my-spec.toml")
    assert sentence in str(error.value)


def test_a_method_that_is_no_table_is_refused() -> None:
    text = MINIMAL.split("[method]", maxsplit=1)[0] + 'method = "paper"\n'
    with pytest.raises(RunFileError, match=r"method = 'paper'; it must be a table"):
        from_toml(text, name="spec.toml")


def test_specifications_are_read_from_files(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(to_toml(SPEC), encoding="utf-8")
    assert load_spec(path) == SPEC
    assert FORMAT in path.read_text(encoding="utf-8")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match=r"there is no file .*missing\.toml"):
        load_spec(tmp_path / "missing.toml")
    with pytest.raises(RunFileError, match="cannot read"):
        load_spec(tmp_path)
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'workload = "\xe4"')
    with pytest.raises(RunFileError, match="not UTF-8"):
        load_spec(latin)


# Arrays ---------------------------------------------------------------------------------------------------------


def test_arrays_come_back(tmp_path: Path) -> None:
    path = tmp_path / "basis.npz"
    basis = np.array([[0.1, -0.0], [5e-324, 1e300]])
    save_npz(path, basis=basis, rounds=np.int64(7), label=np.array("ä"))
    back = load_npz(path, "a basis")
    assert set(back) == {"basis", "rounds", "label"}
    assert same(back["basis"], basis)
    assert int(back["rounds"]) == 7
    assert str(back["label"]) == "ä"


def test_a_file_is_replaced_as_a_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "basis.npz"
    save_npz(path, basis=np.zeros(3))
    save_npz(path, basis=np.ones(2))
    assert same(load_npz(path, "a basis")["basis"], np.ones(2))
    assert [entry.name for entry in tmp_path.iterdir()] == ["basis.npz"]


class Unwritable:
    """Fails while it is being made an array of."""

    def __init__(self, failure: BaseException) -> None:
        self.failure = failure

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise self.failure


@pytest.mark.parametrize(
    ("failure", "expected"), [(OSError(28, "No space left on device"), RunFileError), (KeyboardInterrupt(), None)]
)
def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, failure: BaseException, expected: type[BaseException] | None
) -> None:
    path = tmp_path / "basis.npz"
    save_npz(path, basis=np.zeros(3))
    with pytest.raises(expected or type(failure)):
        save_npz(path, basis=Unwritable(failure))
    assert same(load_npz(path, "a basis")["basis"], np.zeros(3))
    assert [entry.name for entry in tmp_path.iterdir()] == ["basis.npz"]


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match=r"cannot write .*basis\.npz: No such file"):
        save_npz(tmp_path / "missing" / "basis.npz", basis=np.zeros(3))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match=r"there is no file .*; it should be a basis"):
        load_npz(tmp_path / "missing.npz", "a basis")
    good = tmp_path / "good.npz"
    save_npz(good, basis=np.arange(1000.0))
    whole = good.read_bytes()
    damaged = {"empty": b"", "text": b"not an archive", "cut": whole[:-200], "flipped": whole[:300] + b"\0" * 4000}
    for name, content in damaged.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(RunFileError, match="cannot be read as a basis"):
            load_npz(path, "a basis")
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(RunFileError, match="cannot be read as a basis"):
        load_npz(tmp_path / "single.npy", "a basis")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "objects.npz"
    marker = tmp_path / "executed"

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(marker),)

    np.savez(path, payload=np.array([Hostile()], dtype=object))
    with pytest.raises(RunFileError, match="cannot be read as"):
        load_npz(path, "a basis")
    assert not marker.exists()


# Files of others ------------------------------------------------------------------------------------------------

SECONDS, BYTES = 2.0, 64 << 20
"""What a refusal may take of time, and of memory."""


def member(dtype: str, shape: str, content: bytes, *, header: int = 0) -> bytes:
    """An array as it stands in an npz file, which says what it likes of itself."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(header) + b"\n"
    return b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text + content


def archive(path: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two members of one name
        with zipfile.ZipFile(path, "w", method) as file:
            for name, content in members:
                file.writestr(name, content)
    return path


def bombs(folder: Path) -> Iterator[tuple[Path, str]]:
    """Files that would take much memory or time, or that lie, and the words of the error."""
    zeros = bytes(50 << 20)
    basis = ("basis.npy", member("<f8", "(3, 2)", bytes(48)))

    def one(name: str, *of: tuple[str, bytes], **more: int) -> Path:
        return archive(folder / f"{name}.npz", *of, **more)

    unpacked = ("basis.npy", member("<f8", f"({len(zeros) // 8},)", zeros))
    yield one("bomb", unpacked, method=zipfile.ZIP_DEFLATED), "more than 100 times as many"
    yield one("lzma", basis, method=zipfile.ZIP_LZMA), "compressed in a way that is not read"
    yield one("long", ("basis.npy", member("<f8", "(3, 2)", zeros))), "takes 48 bytes, and there are 52428800"
    yield one("short", ("basis.npy", member("<f8", "(3, 2)", b"1"))), "takes 48 bytes, and there are 1"
    huge = member("<f8", "(1099511627776, 1099511627776)", b"")
    yield one("huge", ("basis.npy", huge)), "of shape .* takes 9671406556917033397649408 bytes"
    yield one("negative", ("basis.npy", member("<f8", "(-3, -2)", bytes(48)))), r"has the shape \(-3, -2\)"
    yield one("nothing", ("basis.npy", member("<f8", "(9999999999, 0)", b""))), "and no content"
    yield one("weightless", ("basis.npy", member("|V0", "(9999999999,)", b""))), "and no content"
    yield one("header", ("basis.npy", member("<f8", "(3, 2)", b"", header=30 << 20))), "the header of .* 31457281 b"
    yield one("objects", ("basis.npy", member("|O", "(1,)", bytes(8)))), "holds objects"
    yield one("twice", basis, basis), "holds two arrays 'basis'"
    yield one("no-array", ("basis.npy", b"not an array at all")), "is no array"
    yield one("many", *((f"{number:040000}.npy", b"") for number in range(500))), "its list of arrays has .* bytes"
    lying = one("lying", basis)
    content = bytearray(lying.read_bytes())
    at = content.index(b"PK\x01\x02") + 20  # in the list: a member of 3 GiB that nothing was packed into
    content[at : at + 8] = (48).to_bytes(4, "little") + (3 << 30).to_bytes(4, "little")
    lying.write_bytes(content)
    yield lying, "unpacks from 48 bytes to 3221225472"
    sparse = one("sparse", basis)  # the list of its arrays, behind a terabyte that takes no room on the disk
    data = sparse.read_bytes()
    at = data.index(b"PK\x05\x06") + 16
    with sparse.open("r+b") as file:
        file.seek(1 << 40)
        file.write(data[data.index(b"PK\x01\x02") :])
    yield sparse, "File is not a zip file|it is no npz file|is no array|Bad magic"
    os.mkfifo(folder / "pipe.npz")
    yield folder / "pipe.npz", "it is a pipe, not a file"
    (folder / "device.npz").symlink_to("/dev/zero")
    yield folder / "device.npz", "it is a device, not a file"
    (folder / "folder.npz").mkdir()
    yield folder / "folder.npz", "it is a folder, not a file"


def test_hostile_arrays_are_refused_in_bounded_time_and_memory(tmp_path: Path) -> None:
    for path, text in bombs(tmp_path):
        tracemalloc.start()
        begun = time.process_time()
        with pytest.raises(RunFileError, match=f"{path.name} cannot be read as a basis: .*{text}"):
            load_npz(path, "a basis")
        seconds, (_, peak) = time.process_time() - begun, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert seconds < SECONDS, path
        assert peak < BYTES, path


def test_compressed_arrays_are_read(tmp_path: Path) -> None:
    path, values = tmp_path / "basis.npz", np.random.default_rng(1).normal(size=(100, 20))
    np.savez_compressed(path, basis=values, other=np.asfortranarray(values), empty=np.zeros((0, 3)))
    back = load_npz(path, "a basis")
    assert same(back["basis"], values)
    assert same(back["other"], values)
    assert back["empty"].shape == (0, 3)
    assert load_npz(path, "a basis", names={"empty", "absent"}).keys() == {"empty"}
    with pytest.raises(RunFileError, match="and at most 20000 are read"):
        load_npz(path, "a basis", most_bytes=20_000)


def test_what_an_array_holds_can_be_changed_as_numpys_own(tmp_path: Path) -> None:
    save_npz(tmp_path / "basis.npz", basis=np.zeros(3))
    load_npz(tmp_path / "basis.npz", "a basis")["basis"][0] = 1.0


def test_a_specification_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(to_toml(SPEC), encoding="utf-8-sig")
    assert load_spec(path) == SPEC


def test_hostile_specifications_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    os.mkfifo(path)
    with pytest.raises(RunFileError, match=r"cannot read .*spec\.toml: it is a pipe, not a file"):
        load_spec(path)
    path.unlink()
    path.write_text("x = 1\n" * 20_000)
    with pytest.raises(RunFileError, match=r"it has 120000 bytes, and at most 65536 are read"):
        load_spec(path)
    for deep in (f"{'a.' * 30_000}a = 1", f"a = {'[' * 30_000}"):  # the first took 20 s
        path.write_text(f'format = "{FORMAT}"\n{deep}\n')
        with pytest.raises(RunFileError, match="is nested too deeply"):
            load_spec(path)


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_files_have_the_permissions_that_the_umask_leaves(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        save_npz(tmp_path / "basis.npz", basis=np.zeros(3))
        with writing_whole(tmp_path / "key", mode=0o600) as file:
            file.write(b"secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "basis.npz").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_an_array_in_pieces_is_in_the_file_as_a_whole(tmp_path: Path) -> None:
    """numpy reads it as one array, whichever shapes the pieces have along the first axis."""
    path, rng = tmp_path / "pieces.npz", np.random.default_rng(1)
    blocks = [rng.standard_normal((size, 4, 2)) for size in (3, 0, 5)]
    rounds = [rng.standard_normal((8, 2)) for _ in range(3)]
    names = [np.array(["a", "bc"]), np.array(["de"])]
    save_npz(path, whole=Pieces.of(blocks), stack=Pieces.of([Pieces.stacked(rounds, -2)]), names=Pieces.of(names))
    expected = {"whole": np.concatenate(blocks), "stack": np.stack(rounds, axis=1), "names": np.concatenate(names)}
    with np.load(path, allow_pickle=False) as archive:
        for name, value in expected.items():
            np.testing.assert_array_equal(archive[name], value)
    np.testing.assert_array_equal(np.asarray(Pieces.of(blocks)), expected["whole"])
    for row in (0, 7):
        found = load_npz(path, "a test", names=("whole", "stack"), row=row, most_bytes=200)
        np.testing.assert_array_equal(found["whole"], expected["whole"][row])
        np.testing.assert_array_equal(found["stack"], expected["stack"][row])


def test_rows_are_as_bounded_as_arrays(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    save_npz(path, whole=np.zeros((4, 10)), one=np.array(1.0), turned=np.asfortranarray(np.zeros((4, 3))))
    for names, row, what in (
        (("whole",), 4, "has no row 4"),
        (("one",), 0, "has no row 0"),
        (("turned",), 0, "Fortran's order"),
    ):
        with pytest.raises(RunFileError, match=what):
            load_npz(path, "a test", names=names, row=row)
    with pytest.raises(RunFileError, match="a row of array 'whole' has 80 bytes, and at most 79"):
        load_npz(path, "a test", names=("whole",), row=1, most_bytes=79)
