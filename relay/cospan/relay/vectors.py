"""The part of a relay's own session in secure sums: it offers the keys of those below it, and masks nothing."""

from dataclasses import replace

from cospan.client.session.machine import SessionState, TransmitMasked
from cospan.core.secure_sums.membership import Membership
from cospan.core.specification import RunSpecification
from cospan.relay.events import EpochAbove
from cospan.server.machine.secure_sums.epochs import Offer
from cospan.wire.errors import InvalidValueError, MembershipRefusedError
from cospan.wire.messages import GradientUpload, Join, SumMembers
from cospan.wire.security.certificate import uris_of_pem
from cospan.wire.security.identity import of_certificate
from cospan.wire.security.tls import TlsSource


def check_certificate(tls: TlsSource | None) -> None:
    """Checks that a relay cannot prove keys for the agents below it.

    A certificate of agents could: with keys of its own in place of theirs a relay would read what they upload.

    Raises:
        InvalidValueError: its certificate towards the coordinator is one of agents.
    """
    if tls is None:
        return
    identity = of_certificate(uris_of_pem(tls.material.certificate), address="")
    if identity.any_agent or identity.agent_ids or identity.ranges:
        raise InvalidValueError(
            f"the relay's certificate towards its coordinator is for {identity.name}: with it a relay could make "
            "keys for these agents, and read what they upload; a run with secure sums needs one of "
            "`cospan certs issue --relay FIRST..LAST`"
        )


class VectorsBelow:
    """Keys of others upwards, members of an epoch downwards, and sums of vectors that are masked already."""

    def __init__(self) -> None:
        """No process is below yet."""
        self.offer = Offer(())
        """What the relay joins with."""
        self.epoch: EpochAbove | None = None
        """The newest that the coordinator has named."""

    def offered(self, join: Join) -> Join:
        """The join with the keys of all processes below the relay, and their proofs."""
        return replace(join, sum_members=self.offer.members, key_proofs=self.offer.key_proofs)

    def agree(self, named: SumMembers, state: SessionState) -> bytes:
        """The id of an epoch. Its members check it themselves; here only what none of them could accept is refused.

        Raises:
            MembershipRefusedError: it is too small, or malformed, or lacks a member below the relay.
        """
        assert state.specification is not None
        membership = Membership(named.stamp.run_id, named.members)
        # The relay may have joined with others since the epoch was formed: they are members of the next one.
        own = sorted(set(self.offer.members) & set(named.members)) or self.offer.members
        problem = membership.problem_for(own[0], state.specification.min_cohort)
        if problem:
            raise MembershipRefusedError(f"the members of a secure sum are refused: {problem}; nothing was sent")
        self.epoch = EpochAbove(membership, named.key_proofs, len(own))
        return membership.epoch_id

    def masked(self, command: TransmitMasked, specification: RunSpecification) -> GradientUpload:
        """The sum as it was added; its vectors were masked by those below."""
        return command.upload
