"""Seeds of the chains of many agents at once: a large fleet begins with a tenth of the time for each.

`numpy.random.SeedSequence` hashes a few words with constants that do not depend on them (O'Neill 2015, "Developing
a seed_seq alternative"; NumPy keeps its results from version to version). Here that is done for an array of agents.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt

_POOL = 4
_WORD = 2**32 - 1
_INIT_A, _MULT_A, _INIT_B, _MULT_B = 0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
_SHIFT = np.uint32(16)


def first_words(entropy: Sequence[int | UInt[np.ndarray, " n"]], child: int) -> UInt[np.ndarray, " n"]:
    """`SeedSequence(entropy).spawn(child + 1)[child].generate_state(1)[0]` of n agents.

    Args:
        entropy: numbers, 0 or more; one that differs between the agents is an array of words below 2³².
        child: below 2³².
    """
    words = [word for number in entropy for word in _words_of(number)]
    words += [np.zeros(1, dtype=np.uint32)] * (_POOL - len(words)) + _words_of(child)
    hashed = _Hash(_INIT_A, _MULT_A)
    pool = [hashed(word) for word in words[:_POOL]]
    for source in range(_POOL):
        for place in range(_POOL):
            if source != place:
                pool[place] = _mixed(pool[place], hashed(pool[source]))
    for word in words[_POOL:]:
        for place in range(_POOL):
            pool[place] = _mixed(pool[place], hashed(word))
    return _Hash(_INIT_B, _MULT_B)(pool[0])


class _Hash:
    """The hash of words, whose constant changes with each."""

    def __init__(self, constant: int, factor: int) -> None:
        self._constant, self._factor = constant, factor

    def __call__(self, words: UInt[np.ndarray, " n"]) -> UInt[np.ndarray, " n"]:
        found = words ^ np.uint32(self._constant)
        self._constant = self._constant * self._factor & _WORD
        found = found * np.uint32(self._constant)
        return np.asarray(found ^ (found >> _SHIFT))


def _mixed(left: UInt[np.ndarray, " n"], right: UInt[np.ndarray, " m"]) -> UInt[np.ndarray, " k"]:
    found = np.asarray(left * _MIX_LEFT - right * _MIX_RIGHT, dtype=np.uint32)
    return np.asarray(found ^ (found >> _SHIFT))


def _words_of(number: int | UInt[np.ndarray, " n"]) -> list[UInt[np.ndarray, " n"]]:
    """The words of a number, the lowest first; those of 0 are a 0."""
    if isinstance(number, np.ndarray):
        return [number.astype(np.uint32)]
    words = [number & _WORD]
    while number := number >> 32:
        words.append(number & _WORD)
    return [np.array([word], dtype=np.uint32) for word in words]
