"""The masks of one member in one epoch."""

import numpy as np

from cospan.core.secure_sums.fixed_point import Words
from cospan.core.secure_sums.graph import neighbours_of
from cospan.core.secure_sums.membership import Membership
from cospan.wire.errors import MembershipRefusedError
from cospan.wire.secure_sums.keys import KeyPair, NewestVector
from cospan.wire.secure_sums.streams import Stream


class MaskUsedError(RuntimeError):
    """A second vector was to be masked as one before it: a fault of the caller, never sent anywhere."""


class Masker:
    """Masks what one member sends in one epoch.

    One key pair masks one vector a round, rounds ascending, whatever the epoch: see `KeyPair.newest`.
    """

    def __init__(self, key: KeyPair, membership: Membership) -> None:
        """Makes the keys shared with every neighbour: about 30 µs each.

        Args:
            key: of this process.
            membership: whose `problem_for` and proofs were found in order.

        Raises:
            MembershipRefusedError: the own key is not in it, or a neighbour's is unusable.
        """
        place = membership.place_of(key.public_key)
        if place is None:
            raise MembershipRefusedError("this process is not among the members of the epoch")
        self._key = key
        self.epoch_id = membership.epoch_id
        self._adding: list[Stream] = []
        self._subtracting: list[Stream] = []
        for other in neighbours_of(self.epoch_id, len(membership.members), place):
            their = membership.members[other].public_key
            stream = Stream(key.pair_keys(their, self.epoch_id))
            (self._adding if key.public_key < their else self._subtracting).append(stream)

    @property
    def neighbours(self) -> int:
        """With how many members it adds masks."""
        return len(self._adding) + len(self._subtracting)

    def mask(self, round_number: int, announcement: bytes, words: Words) -> Words:
        """The vector of a round with all its masks, in a new array.

        Asked for the newest round again, in the same epoch, with the same announcement and vector, it gives the
        same bytes.

        Args:
            round_number: t.
            announcement: `announcement_digest` of what the round was opened with.
            words: as of `fixed_point.encode`.

        Raises:
            MaskUsedError: the key pair has masked another vector for this round, or one for a later round.
        """
        newest = self._key.newest
        if newest is not None and round_number <= newest.round:
            asked = (round_number, self.epoch_id, announcement)
            if asked == newest[:3] and np.array_equal(words, newest.words):
                return newest.masked.copy()
            raise MaskUsedError(
                f"a vector was masked for round {newest.round}; another one, for round {round_number}, must not be"
            )
        masked = np.add(words, self._masks(round_number, announcement, len(words)))
        self._key.newest = NewestVector(round_number, self.epoch_id, announcement, words.copy(), masked)
        return masked.copy()  # type: ignore[no-any-return]

    def _masks(self, round_number: int, announcement: bytes, count: int) -> Words:
        """Σ over the neighbours of plus or minus the words shared with each."""
        message, zeros = round_number.to_bytes(8, "little") + announcement, bytes(8 * count)

        def sum_of(streams: list[Stream]) -> Words:
            # Of all at once: an array for each neighbour takes longer than its words do.
            together = b"".join([stream.of_message(message, zeros) for stream in streams])
            total: Words = np.add.reduce(
                np.frombuffer(together, dtype="<u8").reshape(len(streams), count), axis=0, dtype=np.uint64
            )
            return total

        return np.subtract(sum_of(self._adding), sum_of(self._subtracting))  # type: ignore[no-any-return]
