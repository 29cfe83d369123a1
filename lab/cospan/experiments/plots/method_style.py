"""The colour and the marker of each method: the same in every picture.

The colours are those of Okabe and Ito, which colour-blind people can tell apart; markers differ as well, for prints
without colours.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MethodStyle:
    """How a method is drawn.

    Attributes:
        colour: of its line.
        marker: of its points, as matplotlib names it.
    """

    colour: str
    marker: str


JOINT_STYLE = MethodStyle("#0072B2", "o")
LSTD_STYLE = MethodStyle("#CC79A7", "s")
TD_STYLE = MethodStyle("#D55E00", "^")
_KNOWN_STYLE = MethodStyle("#009E73", "D")
_FIXED = {
    "joint": JOINT_STYLE,
    "mean": JOINT_STYLE,  # by its aggregation, beside robust ones
    "LSTD alone": LSTD_STYLE,
    "TD alone": TD_STYLE,
    "joint, B* known": _KNOWN_STYLE,
    "B* known": _KNOWN_STYLE,
    "FedTD-Uniform": MethodStyle("#E69F00", "v"),
    "TD, SVD at the server": MethodStyle("#56B4E9", "P"),
    "PMAAR-AC": JOINT_STYLE,
    "SingleAC": TD_STYLE,
    "FedAC-Uniform": MethodStyle("#E69F00", "v"),
    "one time scale": JOINT_STYLE,  # beside the rule with two
    "two time scales": MethodStyle("#000000", "X"),
    "full-history": MethodStyle("#999999", "d"),
}
_FURTHER = (
    *(("#009E73", "D"), ("#E69F00", "v"), ("#56B4E9", "P"), ("#000000", "X")),
    *(("#999999", "d"), ("#8C564B", "h"), ("#0072B2", "<"), ("#D55E00", ">"), ("#CC79A7", "p")),
)


def styles_of(methods: Sequence[str]) -> dict[str, MethodStyle]:
    """The style of each method of a picture.

    Well-known methods have the same style in every picture; the others take, in their order, those that are left.
    """
    found = {name: _FIXED[name] for name in methods if name in _FIXED}
    taken = {style.colour for style in found.values()}
    left = [MethodStyle(*each) for each in _FURTHER if each[0] not in taken]
    left += [MethodStyle(*each) for each in _FURTHER if each[0] in taken]
    others = [name for name in methods if name not in _FIXED]
    return found | {name: left[number % len(left)] for number, name in enumerate(others)}
