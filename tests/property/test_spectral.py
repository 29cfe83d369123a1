"""What must hold of a spectral warm start for every set of estimates."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cospan.core.aggregation.warm_start import cross_spectrum, spectral_basis
from cospan.core.linalg.subspace import orthonormality_error, principal_angle_sine, random_basis

seeds = st.integers(0, 2**32 - 1)
Estimates = tuple[np.ndarray, np.ndarray]


@st.composite
def estimates(draw: st.DrawFn) -> Estimates:
    """[a_k b_k] of some agents, (n, d, 2), and a basis; some agents have zeros, and some sets little rank."""
    dim, agents = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(seeds))
    pairs = rng.standard_normal((agents, dim, 2))
    pairs[rng.random(agents) < 0.2] = 0.0
    if draw(st.booleans()):
        keep = draw(st.integers(1, dim))
        pairs = np.einsum("dq,nqs->nds", rng.standard_normal((dim, keep)), pairs[:, :keep])
    return pairs, random_basis(dim, draw(st.integers(1, dim)), rng)


def gap(pairs: np.ndarray, rank: int) -> float:
    """Between eigenvalue r, which is to be positive, and the next one."""
    values, _ = cross_spectrum(pairs[:, :, 0].T, pairs[:, :, 1].T)
    padded = np.concatenate([values, np.zeros(2 * pairs.shape[1] + 2)])
    padded = np.sort(padded)[::-1] if len(values) < pairs.shape[1] else np.append(values, -np.inf)
    return float(min(padded[rank - 1] - padded[rank], padded[rank - 1])) if rank <= len(values) else 0.0


@given(estimates())
def test_the_basis_is_orthonormal_and_the_same_each_time(made: Estimates) -> None:
    pairs, basis = made
    found = spectral_basis(list(pairs), basis)
    assert found.shape == basis.shape
    assert orthonormality_error(found) < 1e-14
    assert found.tobytes() == spectral_basis(list(pairs), basis).tobytes()


@given(estimates(), st.randoms(use_true_random=False))
def test_neither_order_nor_which_half_is_first_nor_the_unit_matters(made: Estimates, random: object) -> None:
    pairs, basis = made
    if gap(pairs, basis.shape[1]) < 1e-6:
        return
    shuffled = list(7.5 * pairs[:, :, ::-1])
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert principal_angle_sine(spectral_basis(shuffled, basis), spectral_basis(list(pairs), basis)) < 1e-7


@given(estimates(), seeds)
def test_turned_features_turn_the_subspace(made: Estimates, seed: int) -> None:
    """Gauge: with O φ for φ, O orthogonal, every estimate is turned by O, and so is the span."""
    pairs, basis = made
    if gap(pairs, basis.shape[1]) < 1e-6:
        return
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(basis), len(basis))))[0]
    turned = spectral_basis([turn @ pair for pair in pairs], turn @ basis)
    assert principal_angle_sine(turned, turn @ spectral_basis(list(pairs), basis)) < 1e-7


@given(estimates())
def test_with_and_without_the_dense_matrix_it_is_the_same(made: Estimates) -> None:
    """Agents who send zeros add nothing to the sum; enough of them and the dense matrix is formed."""
    pairs, basis = made
    if gap(pairs, basis.shape[1]) < 1e-6:
        return
    more = [*pairs, *np.zeros((len(basis), len(basis), 2))]
    assert principal_angle_sine(spectral_basis(more, basis), spectral_basis(list(pairs), basis)) < 1e-6
