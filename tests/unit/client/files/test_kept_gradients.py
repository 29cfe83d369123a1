"""Gradients in an agent's file: what is read is what was written, whatever the run sends over the network."""

from dataclasses import replace

import numpy as np
import pytest
from runs import specification, upload

from cospan.client.files.agent_result import AgentResult
from cospan.client.files.kept_gradients import kept_values, loaded_kept
from cospan.client.session.machine import KeptGradient
from cospan.core.specification import RunSpecification

PLAIN = specification(agents=3, feature_fingerprint="map-1")
SECURE = replace(PLAIN, secure_sums=True, min_cohort=3)


def result(kept: tuple[KeptGradient, ...]) -> AgentResult:
    return AgentResult(kept_values(kept))


@pytest.mark.parametrize("spec", [PLAIN, SECURE], ids=["plain", "secure sums"])
def test_gradients_are_read_as_they_were_written(spec: RunSpecification) -> None:
    """With secure sums too they are kept as they were learnt: who reads them masks with another key."""
    basis = spec.initial_basis()
    kept = tuple(KeptGradient(upload(number, value=number + 0.5), basis) for number in range(3))
    found = loaded_kept(result(kept), spec)
    assert [each.upload.round for each in found] == [0, 1, 2]
    for before, after in zip(kept, found, strict=True):
        assert after.is_of(before.upload.round, basis, None)
        assert after.epoch_id == b"", "nothing was sent by this process"
        assert np.array_equal(after.upload.plain.gradient.values, before.upload.plain.gradient.values)


def test_gradients_of_other_sizes_are_left_out() -> None:
    kept = (KeptGradient(upload(0), PLAIN.initial_basis()),)
    assert loaded_kept(result(kept), replace(SECURE, rank=1)) == ()
