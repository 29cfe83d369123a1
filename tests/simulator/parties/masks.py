"""The keys and masks of a simulated process: the code that ships, with keys that follow from the seed."""

import hashlib
import logging
from typing import TYPE_CHECKING

from cospan.client.session import machine as session
from cospan.client.session.masking import Masking
from cospan.core.secure_sums.membership import Membership
from cospan.core.specification import RunSpecification
from cospan.wire.messages import (
    BasisUpdate,
    CoordinatorMessage,
    GradientUpload,
    Join,
    MaskedVector,
    SumMembers,
    Welcome,
)
from cospan.wire.secure_sums.keys import KeyPair, PairKeys

if TYPE_CHECKING:  # the witness knows this module
    from simulator.duties.secure_sums import SecureSums

logging.getLogger("cospan.client.session.masking").addHandler(logging.NullHandler())


def epoch_id_of(members: SumMembers | None) -> bytes:
    """The id of the epoch that these members make; empty without them."""
    return b"" if members is None else Membership(members.stamp.run_id, members.members).epoch_id


class SimulatedKeyPair(KeyPair):
    """A key pair without a curve, which takes a tenth of the time: anyone could compute what two members share."""

    def __init__(self, name: str) -> None:
        self.public_key = hashlib.sha256(name.encode()).digest()
        self.newest = None

    def pair_keys(self, public_key: bytes, epoch_id: bytes) -> PairKeys:
        """As the real ones, of this epoch and these two alone."""
        first, second = sorted((self.public_key, public_key))
        derived = hashlib.sha512(epoch_id + first + second).digest()
        return PairKeys(derived[:32], derived[32:])


class Masks:
    """What `SessionDriver` does of secure sums, for a process of one run."""

    def __init__(self, name: str, book: "SecureSums") -> None:
        """`name` is of this process alone; the `book` sees all that is masked."""
        self.key = SimulatedKeyPair(name)
        self._masking, self._book = Masking(None, self.key), book
        self._named = self._open = b""
        self._has_answered = True

    @property
    def owes(self) -> bool:
        """Whether the open round waits for a vector of this process, or for word that it sends none."""
        return bool(self._open) and self._open == self._named and not self._has_answered

    def took(self, message: CoordinatorMessage) -> None:
        """What the process is told of epochs."""
        match message:
            case SumMembers():
                self._named = epoch_id_of(message)
            case Welcome(membership=membership):
                self._named = epoch_id_of(membership)
                self._open = self._named if message.first_round == message.stamp.round else b""
                self._has_answered = False
            case BasisUpdate(epoch_id=epoch_id):
                self._open, self._has_answered = epoch_id, False
            case _:
                pass

    def answered(self) -> None:
        """A vector of the open round was sent, or that none is."""
        self._has_answered = True

    def offered(self, join: Join) -> Join:
        """The join with the key."""
        return self._masking.offered(join)

    def agree(self, command: session.Agree, state: session.SessionState) -> bytes:
        """The id of an epoch, whose members are in order."""
        return self._masking.agree(command.members, state)

    def masked(self, command: session.TransmitMasked, specification: RunSpecification) -> GradientUpload:
        """The upload as it is sent."""
        sent = self._masking.masked(command, specification)
        assert isinstance(sent.contribution, MaskedVector)
        assert sent.contribution.epoch_id == self._open, "a vector is masked in another epoch than the round's"
        self._book.masked(self.key.public_key, sent.round, command.basis.tobytes(), sent.contribution)
        return sent
