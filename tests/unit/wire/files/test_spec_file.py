"""Run specifications as TOML files."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from cospan.core.method import paper, practical
from cospan.core.specification import RunSpecification
from cospan.wire.errors import RunFileError
from cospan.wire.files.spec_file import from_toml, load_spec, to_toml

SPEC = RunSpecification(
    workload="queues",
    feature_dim=43,
    rank=2,
    agents=40,
    rounds=500,
    seed=2**62,
    method=replace(practical(20), head_step=3.0),
    feature_fingerprint="one-hot-0123",
)


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        replace(SPEC, method=replace(paper(1), head_radius=math.inf, head_step=0.1 + 0.2)),
        replace(SPEC, workload='quo"ted\\', feature_fingerprint="", rounds=0, round_timeout_seconds=1e-3),
    ],
)
def test_a_specification_comes_back_as_it_was(spec: RunSpecification) -> None:
    text = to_toml(spec)
    assert from_toml(text, name="spec.toml") == spec
    assert from_toml(text, name="spec.toml").digest() == spec.digest()


def test_fields_with_a_default_may_be_left_out_and_whole_numbers_may_stand_for_floats() -> None:
    lines = [line for line in to_toml(SPEC).splitlines() if not line.startswith(("session_timeout", "implicit"))]
    text = "\n".join(lines).replace("head_step = 3.0", "head_step = 3")
    found = from_toml(text, name="spec.toml")
    assert found.method.head_step == 3.0
    assert isinstance(found.method.head_step, float)
    assert not found.method.implicit_head_step


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        ("rank = 2", "rank = true", "rank = True; it must be a whole number"),
        ("rank = 2", "rank = 44", "rank is 44; it must be 1 to feature_dim = 43"),
        ("rank = 2", "rang = 2", "rang = 2, which is no field"),
        ("rank = 2\n", "", "lacks rank"),
        ('workload = "queues"', "workload = 7", "workload = 7; it must be a text in quotes"),
        ("head_step = 3.0", 'head_step = "big"', "method.head_step = 'big'; it must be a number"),
        ("head_step = 3.0", "head_step = nan", "head_step is nan"),
        ("head_step = 3.0", "step = 3.0", "method.step = 3.0"),
        ("implicit_head_step = true", "implicit_head_step = 1", "must be true or false"),
        (
            '"posterior"',
            '"sometimes"',
            "method.head_update = 'sometimes'; it must be 'end-of-round' or 'every-step' or",
        ),
        ("[method]", "[rule]", "rule = {"),
        ('"cospan-spec-1"', '"cospan-spec-9"', "format = 'cospan-spec-9'"),
        ("rank = 2", "rank = ", "is not TOML"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(was: str, becomes: str, says: str) -> None:
    text = to_toml(SPEC)
    assert was in text
    with pytest.raises(RunFileError) as failure:
        from_toml(text.replace(was, becomes), name="folder/spec.toml")
    assert str(failure.value).startswith("folder/spec.toml")
    assert says in str(failure.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="there is no file"):
        load_spec(tmp_path / "spec.toml")
    with pytest.raises(RunFileError, match="cannot read"):
        load_spec(tmp_path)
    (tmp_path / "latin").write_bytes(b"\xff\xfe")
    with pytest.raises(RunFileError, match="UTF-8"):
        load_spec(tmp_path / "latin")
    (tmp_path / "good").write_text(to_toml(SPEC), encoding="utf-8")
    assert load_spec(tmp_path / "good") == SPEC
