"""The keys and masks of one process in one run with secure sums: what the session machine decides on is done here.

With differential privacy a vector is clipped and gets its share of noise before it is masked; once for a round, and
what is sent again has the same noise.

All cryptography is `cospan.wire.secure_sums`; its package may be missing, so this module is imported when a run has
secure sums. The key pair is in memory alone.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from cospan.client.session.machine import SessionState, TransmitMasked, most_kept_rounds
from cospan.core.privacy.private_run import vector_of
from cospan.core.privacy.word_source import SystemWords, WordSource
from cospan.core.secure_sums.announcement import announcement_digest, specification_digest
from cospan.core.secure_sums.graph import neighbours_of
from cospan.core.secure_sums.membership import Member, Membership
from cospan.core.specification import RunSpecification
from cospan.wire.errors import MembershipRefusedError, WorkloadBehaviourError
from cospan.wire.messages import GradientUpload, Join, MaskedVector, SumMembers
from cospan.wire.secure_sums.keys import KeyPair
from cospan.wire.secure_sums.masker import Masker
from cospan.wire.secure_sums.proof import check_joined, proof_of
from cospan.wire.security.tls import TlsSource
from cospan.wire.text import listed

log = logging.getLogger(__name__)

_NAMED = 5
"""Most agents that a warning names."""


def system_noise(round_number: int) -> WordSource:
    """The operating system's generator, in every round: the only source that keeps what is promised."""
    return SystemWords()


class Masking:
    """The part of a process in secure sums."""

    def __init__(
        self,
        tls: TlsSource | None,
        key: KeyPair | None = None,
        noise: Callable[[int], WordSource] = system_noise,
    ) -> None:
        """Makes a key pair, unless one is given.

        Args:
            tls: the certificate that proves the key, and the authority that others' are verified by; None without
                TLS, and then no key is verified.
            key: of tests that need the same keys again; it must have masked nothing.
            noise: gives the source of a round's noise, in a run with differential privacy.
        """
        self._tls, self._key, self._noise = tls, KeyPair() if key is None else key, noise
        self._masker: Masker | None = None
        self._members: tuple[Member, ...] = ()
        """Of the newest epoch."""
        self._sent: dict[int, GradientUpload] = {}
        """Masked uploads by their rounds, in order; as many as the session may have to send again."""
        self._digest: tuple[RunSpecification, bytes] | None = None
        self._scaled_told = False

    def offered(self, join: Join) -> Join:
        """The join with the key of this process, and with TLS its proof by the newest certificate."""
        key = self._key.public_key
        if self._tls is None:
            return replace(join, sum_members=(Member(key, ()),))
        self._tls.refresh()
        proof = proof_of(Member(key, join.agent_ids), self._tls.material)
        return replace(join, sum_members=(Member(key, ()),), key_proofs={key: proof})

    def agree(self, named: SumMembers, state: SessionState) -> bytes:
        """The id of the epoch that the coordinator has named the members of, after they were checked.

        Raises:
            MembershipRefusedError: this process must not send in it.
        """
        assert state.join is not None
        assert state.specification is not None
        membership = Membership(named.stamp.run_id, named.members)
        own = Member(self._key.public_key, state.join.agent_ids)
        problem = membership.problem_for(own, state.specification.min_cohort)
        if problem:
            raise MembershipRefusedError(f"the members of a secure sum are refused: {problem}; nothing was sent")
        if self._tls is not None:
            self._check_neighbours(membership, named, self._tls)
        if self._masker is None or self._masker.epoch_id != membership.epoch_id:
            self._masker = Masker(self._key, membership)
            if self._members:
                log.warning("%s", _change(self._members, named))
            self._members = named.members
        return membership.epoch_id

    def _check_neighbours(self, membership: Membership, named: SumMembers, tls: TlsSource) -> None:
        members = membership.members
        place = membership.place_of(self._key.public_key)
        assert place is not None
        for neighbour in neighbours_of(membership.epoch_id, len(members), place):
            member = members[neighbour]
            check_joined(member, named.key_proofs.get(member.public_key), tls.material.authority, time.time())

    def masked(self, command: TransmitMasked, specification: RunSpecification) -> GradientUpload:
        """The upload as it is sent; the second time the same bytes.

        Raises:
            WorkloadBehaviourError: a number of it is not finite.
        """
        number, masker = command.upload.round, self._masker
        known = self._sent.get(number)
        if known is not None and isinstance(known.contribution, MaskedVector):
            assert known.contribution.epoch_id == command.epoch_id, "a round is sent in one epoch"
            return known
        assert masker is not None
        assert masker.epoch_id == command.epoch_id, "the newest epoch was agreed to last"
        contribution = command.upload.plain
        agents = sum(len(member.agent_ids) for member in self._members)
        try:
            encoded = vector_of(contribution, specification, number, agents, self._noise(number))
        except ValueError as failure:
            raise WorkloadBehaviourError(f"the upload of round {number} has no fixed point: {failure}") from failure
        if encoded.share < 1.0 and not self._scaled_told:
            self._scaled_told = True
            log.warning(
                "round %d: numbers of the upload are out of the range of secure sums; its weight is %.3g",
                number,
                encoded.share,
            )
        announcement = announcement_digest(
            self._digest_of(specification), number, command.basis, command.head_covariance
        )
        words = masker.mask(number, announcement, encoded.words)
        vector = MaskedVector(words, masker.epoch_id, contribution.weight)
        masked = GradientUpload(number, vector, command.upload.agent_ids)
        self._sent[number] = masked
        while len(self._sent) > most_kept_rounds(specification):
            del self._sent[next(iter(self._sent))]
        return masked

    def _digest_of(self, specification: RunSpecification) -> bytes:
        if self._digest is None or self._digest[0] is not specification:
            self._digest = specification, specification_digest(specification)
        return self._digest[1]


def _change(before: tuple[Member, ...], named: SumMembers) -> str:
    """What has changed in the members: a sum without an agent, beside one with it, tells of that agent."""
    former, now = ({agent for member in each for agent in member.agent_ids} for each in (before, named.members))
    parts = [
        f"{listed(sorted(agents), _NAMED)} {verb}"
        for agents, verb in ((former - now, "left"), (now - former, "came"))
        if agents
    ]
    changed = ", ".join(parts) or "a process was started again"
    return f"round {named.stamp.round}: the sum is over {len(named.members)} processes from now on: {changed}"
