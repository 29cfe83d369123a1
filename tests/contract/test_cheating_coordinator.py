"""A coordinator that cheats agents with secure sums: what each lie of docs/security/secure-sums.md comes to.

`Process` is an agent's part, of the functions of `cospan.core.secure_sums` and `cospan.wire.secure_sums` that real
agents call; the coordinator's lies are what a test tells it.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix, to_dense
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import full_history, practical
from cospan.core.secure_sums.announcement import announcement_digest, specification_digest
from cospan.core.secure_sums.fixed_point import Words, added, decode, encode, sum_problem
from cospan.core.secure_sums.graph import neighbours_of
from cospan.core.secure_sums.layout import layout_of
from cospan.core.secure_sums.membership import Member, Membership
from cospan.core.specification import RunSpecification
from cospan.wire.errors import MembershipRefusedError
from cospan.wire.secure_sums.keys import KeyPair
from cospan.wire.secure_sums.masker import Masker, MaskUsedError
from cospan.wire.secure_sums.proof import KeyProof, check_proof, proof_of
from cospan.wire.security import authority
from cospan.wire.security.tls import TlsFiles, TlsMaterial, read_tls

D, R, MIN_COHORT, AGENTS = 5, 2, 3, 5
SPEC = RunSpecification(
    workload="", feature_dim=D, rank=R, agents=AGENTS, rounds=100, seed=3, method=full_history(5)
)
QUIET = 8
"""A round without pooled numbers, with either preset here."""


def basis_of(seed: int) -> np.ndarray:
    return random_basis(D, R, np.random.default_rng(seed))


BASIS = basis_of(0)


def uploaded(place: int, basis: np.ndarray = BASIS) -> Contribution:
    """What the agent at a place would send without secure sums: a function of its data and the basis."""
    rng = np.random.default_rng(place)
    system = rng.standard_normal((D, D))
    return Contribution(DenseMatrix(system @ basis), 1.0)


@dataclass
class Process:
    """One agent's process. With `tls` it proves its key, and asks its neighbours for proofs."""

    place: int
    tls: TlsMaterial | None = None
    key: KeyPair = field(init=False)
    spec: RunSpecification = SPEC

    def __post_init__(self) -> None:
        self.key = KeyPair(hashlib.sha256(f"cheated {self.place}".encode()).digest())

    @property
    def member(self) -> Member:
        return Member(self.key.public_key, (f"site-{self.place}",))

    @property
    def proof(self) -> KeyProof:
        return proof_of(self.member, self.material)

    @property
    def material(self) -> TlsMaterial:
        assert self.tls is not None
        return self.tls

    def masker_in(self, membership: Membership, proofs: Mapping[bytes, KeyProof] | None = None) -> Masker:
        """Its masks in an epoch that the coordinator names; an error where it refuses."""
        if problem := membership.problem_for(self.member, MIN_COHORT):
            raise MembershipRefusedError(problem)
        if self.tls is not None:
            place = membership.place_of(self.key.public_key)
            assert place is not None
            for other in neighbours_of(membership.epoch_id, len(membership.members), place):
                member = membership.members[other]
                check_proof(member, (proofs or {}).get(member.public_key), self.tls.authority, time.time())
        return Masker(self.key, membership)

    def sends(
        self,
        membership: Membership,
        *,
        round_number: int = QUIET,
        basis: np.ndarray = BASIS,
        proofs: Mapping[bytes, KeyProof] | None = None,
        spec: RunSpecification | None = None,
    ) -> Words:
        """Its masked vector of a round."""
        spec = spec or self.spec
        told = announcement_digest(specification_digest(spec), round_number, basis)
        vector = encode(moment_added(uploaded(self.place, basis)), layout_of(SPEC, round_number)).words
        return self.masker_in(membership, proofs).mask(round_number, told, vector)


def moment_added(contribution: Contribution) -> Contribution:
    return replace(contribution, head_second_moment=np.eye(R))


def named(processes: Sequence[Process]) -> Membership:
    return Membership.of("run", [process.member for process in processes])


def fleet() -> list[Process]:
    return [Process(place) for place in range(AGENTS)]


def is_void(vectors: Sequence[Words], agents: int = AGENTS) -> bool:
    return bool(sum_problem(added(vectors), layout_of(SPEC, QUIET), agents))


def plain_sum(places: Sequence[int], basis: np.ndarray = BASIS) -> np.ndarray:
    return np.asarray(sum(to_dense(uploaded(place, basis).gradient) for place in places))


def read(words: Words) -> np.ndarray:
    return to_dense(decode(words, layout_of(SPEC, QUIET)).gradient)


def tells_nothing(words: Words, places: Sequence[int], basis: np.ndarray = BASIS) -> bool:
    """Whether no number that could be read from these words is near the sum over the places, or any one of them."""
    wanted = [plain_sum(places, basis), *(plain_sum([place], basis) for place in places)]
    return all(np.abs(read(words) - each).min() > 1.0 for each in wanted)


# What an honest round shows ------------------------------------------------------------------------------------


def test_an_honest_round_shows_the_sum_and_no_part_of_it() -> None:
    processes = fleet()
    sent = [process.sends(named(processes)) for process in processes]
    assert not is_void(sent)
    assert read(added(sent)) == pytest.approx(plain_sum(range(AGENTS)), abs=1e-12)
    for place in range(AGENTS):
        assert tells_nothing(sent[place], [place])
        assert tells_nothing(added(sent[:place] + sent[place + 1 :]), [p for p in range(AGENTS) if p != place])


# Keys ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> list[Process]:
    folder = tmp_path_factory.mktemp("authority")
    authority.make_authority(folder, name="the fleet's", days=2)
    return [Process(place, issued(folder, f"site-{place}")) for place in range(3)]


def issued(folder: Path, agent: str) -> TlsMaterial:
    authority.issue(folder, agent, uris=[f"cospan:agent:{agent}"], days=1)
    return read_tls(TlsFiles(*(folder / agent / file for file in ("cert.pem", "key.pem", "ca.pem"))))


def proofs_of(processes: Sequence[Process]) -> dict[bytes, KeyProof]:
    return {process.key.public_key: process.proof for process in processes}


def test_proven_keys_are_taken(certified: list[Process]) -> None:
    sent = [each.sends(named(certified), proofs=proofs_of(certified)) for each in certified]
    assert read(added(sent)) == pytest.approx(plain_sum(range(3)), abs=1e-12)


@pytest.mark.parametrize("shown", ["nothing", "the agent's proof", "another agent's", "its own authority's"])
def test_a_substituted_key_is_refused(certified: list[Process], tmp_path: Path, shown: str) -> None:
    """The coordinator names a key of its own as that of site-1."""
    victim, replaced, colluding = certified
    false = Process(1)
    false.key = KeyPair(bytes([99] * 32))
    proofs = proofs_of([victim, colluding])
    if shown == "the agent's proof":
        proofs[false.key.public_key] = replaced.proof
    elif shown == "another agent's":  # a certificate that the fleet's authority has issued, for another name
        proofs[false.key.public_key] = proof_of(false.member, colluding.material)
    elif shown == "its own authority's":
        authority.make_authority(tmp_path, name="the fleet's", days=2)
        proofs[false.key.public_key] = proof_of(false.member, issued(tmp_path, "site-1"))
    with pytest.raises(MembershipRefusedError, match="'site-1'"):
        victim.sends(named([victim, false, colluding]), proofs=proofs)


def test_without_certificates_a_substituted_key_reads_an_upload() -> None:
    """As the page says: then secure sums do not protect from a coordinator that lies."""
    victim = Process(0)
    false = [Process(place) for place in (1, 2)]  # keys of the coordinator, under the names of other agents
    membership = named([victim, *false])
    sent = victim.sends(membership)
    told = announcement_digest(specification_digest(SPEC), QUIET, BASIS)
    zeros = np.zeros(len(sent), np.uint64)
    masks = [Masker(each.key, membership).mask(QUIET, told, zeros) for each in false]
    assert read(added([sent, *masks])) == pytest.approx(plain_sum([0]), abs=1e-12)


# Memberships and epochs ----------------------------------------------------------------------------------------


def test_two_memberships_make_the_round_void_and_show_nothing() -> None:
    processes = fleet()
    other = Process(9)
    odd = named([*processes, other])
    sent = [process.sends(odd if process.place == 0 else named(processes)) for process in processes]
    assert is_void(sent)
    assert tells_nothing(added(sent), range(AGENTS))
    assert tells_nothing(added(sent[1:]), range(1, AGENTS))


@pytest.mark.parametrize("left", [0, 1, 2])
def test_dropping_all_but_one_or_two_is_refused(left: int) -> None:
    processes = fleet()
    with pytest.raises(MembershipRefusedError, match="min_cohort"):
        processes[0].sends(named(processes[: max(left, 1)]))


def test_an_agent_counts_once_in_an_epoch() -> None:
    """So the number of members is no fiction of one agent under several keys."""
    processes = fleet()
    twins = [Process(0), Process(1), Process(1)]
    twins[2].key = processes[4].key
    with pytest.raises(MembershipRefusedError, match="named twice"):
        processes[0].sends(named(twins))


def test_an_epoch_named_again_gives_the_same_bytes_or_nothing() -> None:
    processes = fleet()
    full, fewer = named(processes), named(processes[:4])
    victim = processes[0]
    first = victim.sends(full)
    assert np.array_equal(victim.sends(full), first)
    for membership, round_number, basis in ((fewer, QUIET, BASIS), (full, QUIET, basis_of(1)), (full, 6, BASIS)):
        with pytest.raises(MaskUsedError):
            victim.sends(membership, round_number=round_number, basis=basis)
    later = victim.sends(fewer, round_number=QUIET + 2)
    assert np.array_equal(victim.sends(fewer, round_number=QUIET + 2), later)
    with pytest.raises(MaskUsedError):
        victim.sends(full, round_number=QUIET)


def test_a_vector_of_another_round_or_epoch_cancels_nothing() -> None:
    processes = fleet()
    sent = [process.sends(named(processes), round_number=6) for process in processes]
    late = [process.sends(named(processes)) for process in processes]
    for place in range(AGENTS):
        mixed = [*late[:place], sent[place], *late[place + 1 :]]
        assert is_void(mixed)
        assert tells_nothing(added(mixed), range(AGENTS))


# Announcements -------------------------------------------------------------------------------------------------


def test_two_bases_make_the_round_void_and_show_nothing() -> None:
    """As one at which the uploads of all others are known, which would leave the one as the difference."""
    processes = fleet()
    membership = named(processes)
    known = np.zeros((D, R))
    sent = [process.sends(membership, basis=BASIS if process.place == 0 else known) for process in processes]
    assert is_void(sent)
    assert tells_nothing(added(sent), range(AGENTS))
    assert tells_nothing(added(sent), [0])


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEC, method=practical(5)),
        replace(SPEC, improve=1, evaluation_rounds=2, trial_rounds=50, explore=0.1, confidence=0.95),
        replace(SPEC, method=replace(SPEC.method, steps_per_round=1)),
    ],
)
def test_two_specifications_make_the_round_void(other: RunSpecification) -> None:
    processes = fleet()
    membership = named(processes)
    sent = [process.sends(membership, spec=SPEC if process.place == 0 else other) for process in processes]
    assert is_void(sent)
    assert tells_nothing(added(sent), [0])


def test_chosen_bases_that_are_told_to_all_show_the_fleets_system_and_no_agents() -> None:
    """From D · R columns the coordinator solves for Σ A of all agents: as it is meant to. Of one it has nothing."""
    processes = fleet()
    membership = named(processes)
    rounds = [t for t in range(QUIET, 60) if not SPEC.sends_pooled_in(t)][:6]
    columns, sums, ones = [], [], []
    for round_number in rounds:
        basis = basis_of(round_number)
        sent = [process.sends(membership, round_number=round_number, basis=basis) for process in processes]
        columns.append(basis)
        sums.append(read(added(sent)))
        ones.append(read(sent[0]))
    bases = np.concatenate(columns, axis=1)
    true = [np.random.default_rng(place).standard_normal((D, D)) for place in range(AGENTS)]
    total = np.concatenate(sums, axis=1) @ np.linalg.pinv(bases)
    one = np.concatenate(ones, axis=1) @ np.linalg.pinv(bases)
    assert total == pytest.approx(sum(true), abs=1e-9)
    assert abs(np.corrcoef(one.ravel(), true[0].ravel())[0, 1]) < 0.5
    assert np.linalg.norm(one - true[0]) > 10.0 * np.linalg.norm(true[0])


# What is not prevented -----------------------------------------------------------------------------------------


def test_two_sums_over_different_members_show_the_difference() -> None:
    """As the page says: where uploads do not change between two rounds, an agent that is dropped is shown."""
    processes = fleet()
    before = added([process.sends(named(processes)) for process in processes])
    kept = processes[:4]
    after = added([process.sends(named(kept), round_number=QUIET + 2) for process in kept])
    assert read(before) - read(after) == pytest.approx(plain_sum([4]), abs=1e-12)
