"""A curious operator against real agents: what it recovers, held against the table of docs/security.md.

python tests/contract/test_what_uploads_show.py        # prints the table; put it between the marks of the page
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from curious import (
    INNER,
    D,
    angle,
    counts_of,
    curvature_and_score,
    held,
    jumps,
    logged,
    logged_of_secure_sums,
    rewards_of,
    seen,
    sums_of_rewards,
    support,
    system_of,
    turned_by,
)

from cospan.client.session.run_checks import below_floor
from cospan.core.learning.posterior import PosteriorState
from cospan.core.linalg.matrices import to_dense
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import HeadUpdate, Method, compact, full_history, paper, practical
from cospan.core.uncertainty.evidence import evidence_gradient

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
BEGIN, END = "<!-- begin: tests/contract/test_what_uploads_show.py -->\n", "<!-- end -->"
_SINCE, _CHOSEN = 1000, 40
"""Rounds before the operator begins to choose bases, and in which it does."""


# What is recovered, as shares and errors ----------------------------------------------------------------------


@cache
def starts_of_paper() -> float:
    """The share of rounds whose first state is known, of those that begin in a state with features."""
    log = logged(paper(20), 100)
    found, true = support(log), log.states[::20][:100] - 1
    return float(np.mean((found == true)[(found >= 0) | (true >= 0)][1:]))


@cache
def sums_of_paper() -> float:
    """The largest error of the rounds' sums of rewards less the gain."""
    method = paper(20)
    log = logged(method, 100)
    found = sums_of_rewards(log, method)
    assert len(found) > 50
    true = {t: log.rewards[20 * t : 20 * t + 20].sum() - 20 * log.gains[t] for t in found}
    return max(abs(abs(found[t]) - abs(true[t])) for t in found)


@cache
def seen_in_a_round(head_update: HeadUpdate) -> float:
    """The share of rounds of which it is known which features were seen."""
    method = compact(5) if head_update is HeadUpdate.LEAST_SQUARES else replace(paper(5), head_update=head_update)
    log = logged(method, 100)
    true = [set((log.states[5 * t : 5 * t + 5] - 1).tolist()) - {-1} for t in range(100)]
    return float(np.mean([a == b for a, b in zip(seen(log), true, strict=True)][1:]))


@cache
def counts(steps: int, *, exact: bool) -> float:
    """The share of rounds of which it is known how often each state was left."""
    log = logged(full_history(steps), 100)
    rows = log.states[: 100 * steps].reshape(100, steps)
    true = np.array([np.bincount(row, minlength=D + 1)[1:] for row in rows])[:, INNER]
    found = counts_of(log.exact_row_sums if exact else held(log), steps)
    return float(np.mean(np.abs(found - true).max(axis=1) < 0.5))


@cache
def states_one_by_one() -> float:
    """With L = 1: the share of rounds whose state is the one whose entry of the gradient jumps."""
    log = logged(full_history(1), 300)
    true = log.states[:300]
    return float(np.mean((jumps(log) + 1 == true)[true > 0]))


@cache
def rewards_one_by_one() -> float:
    """With L = 1 and the states: the largest error of the rewards, in their own unit and but for a constant."""
    rounds, since = 70, 40
    log = logged(full_history(1), rounds)
    found, others = rewards_of(log, log.states[: rounds + 1], since)
    assert others == 0
    true = log.rewards[since:rounds]
    return float(np.abs(np.polyval(np.polyfit(found, true, 1), found) - true).max())


@cache
def own_system(bases: str) -> tuple[float, float]:
    """The relative errors of A and of b from some rounds with any bases, bounded ones, or the method's own."""
    rng = np.random.default_rng(5)
    method = full_history(2)
    turned = turned_by(method.largest_turn, rng)

    def chosen(number: int, basis: np.ndarray) -> np.ndarray | None:
        if number < _SINCE or bases == "own":
            return None
        return turned(basis) if bases == "bounded" else random_basis(*basis.shape, rng)

    log = logged(method, _SINCE + _CHOSEN, chosen)
    assert log.sums is not None
    system, right = system_of(log, _SINCE + 1)
    sums = log.sums
    return angle(system, sums.system), angle(right, sums.rewards - sums.gain_estimate * sums.traces)


@cache
def own_solution() -> float:
    """The largest relative error of the agent's own A⁻¹b, but for a factor, over the last rounds that send K."""
    rounds = (15, 18, 21, 25, 29)
    log = logged(practical(20), rounds[-1] + 1)
    curvature, score = curvature_and_score(log, rounds[-1])
    sums, posterior = log.sums, log.posteriors[-1]
    assert sums is not None
    assert posterior is not None
    centred = sums.system - np.outer(sums.traces / sums.steps, posterior.changes)
    errors = [angle(np.linalg.solve(curvature, score), np.linalg.solve(centred, sums.centred_rewards))]
    for number in rounds:
        true, found = log.posteriors[number], curvature_and_score(log, number)
        assert true is not None
        errors.append(angle(np.linalg.solve(*found), np.linalg.solve(true.curvature, true.score)))
    return max(errors)


@cache
def foretold() -> float:
    """The largest relative error of gradients between two rounds that send K, computed from the first of them."""
    log = logged(practical(20), 29)
    curvature, score = curvature_and_score(log, 25)
    known = replace(PosteriorState.initial(D), curvature=curvature, score=score)
    pooled = log.uploads[25].contribution.pooled
    assert pooled is not None
    errors = []
    for number in (26, 27, 28):
        covariance = log.head_covariances[number]
        assert covariance is not None
        gradient, _ = evidence_gradient(known, log.bases[number], covariance)
        sent = to_dense(log.uploads[number].contribution.gradient) / pooled[-1]
        errors.append(float(np.linalg.norm(gradient - sent) / np.linalg.norm(sent)))
    return max(errors)


# What the table says ------------------------------------------------------------------------------------------


def share(value: float) -> str:
    """All, none, or tens of per cent: what does not change with the last digits of the arithmetic."""
    if value >= 0.995:
        return "100 %"
    return "none" if value < 0.02 else f"some {round(10.0 * value) * 10} %"


def within(*errors: float) -> str:
    """The worst of some relative errors, rounded up to 1, 2, 5, 10, … per cent."""
    return f"{next(bound for bound in (1, 2, 5, 10, 20, 50, 100) if max(errors) <= bound / 100.0)} %"


def exactly(error: float) -> str:
    """Up to rounding, or not."""
    return "exactly" if error < 1e-9 else f"to {error:.0e}"


def to_seven_digits(error: float) -> str:
    """Up to the rounding of float32, or not."""
    return "exactly" if error < 1e-5 else f"to {error:.0e}"


def rows() -> list[tuple[str, str, str]]:
    """Of the table: what is sent, what can be recovered, what helps."""
    return [*rows_of_paper_and_compact(), *rows_of_practical(), *rows_of_all_methods()]


def rows_of_paper_and_compact() -> list[tuple[str, str, str]]:
    """The gradients of methods that send what one round has seen."""
    every_step = seen_in_a_round(HeadUpdate.EVERY_STEP)
    return [
        (
            "`paper`: (δ / L) φ(s₀) wᵀ, one product a round",
            f"the state in which the round began, in {share(starts_of_paper())} of the rounds; the sum of the "
            f"round's rewards less the gain, {exactly(sums_of_paper())} but for its sign; the head w",
            "a group",
        ),
        (
            "`compact`: (Σ δ e) wᵀ of the round, and second moment",
            f"which features were seen in the round, in {share(seen_in_a_round(HeadUpdate.LEAST_SQUARES))} of the "
            "rounds; with L = 1 the state; the head's direction, so the shape of the value function",
            "a group; many steps a round",
        ),
        (
            "`--head-update every-step`: Σ δ e wᵀ over the round",
            f"which features were seen in the round, in {share(every_step)} of the rounds; the span of its heads",
            "a group; many steps a round",
        ),
    ]


def rows_of_practical() -> list[tuple[str, str, str]]:
    """The gradients and row sums of the method that sums over all data so far."""
    bases = {name: within(*own_system(name)) for name in ("any", "bounded", "own")}
    return [
        (
            "`practical`: the curvature K of all data so far, d × d in float32, in rounds 0 to 7, 9, 11, 13, 15, "
            "18, …, and in every round a gradient, d × r",
            "in those rounds K and the shared weight, where it is below 0.18 (ω is sent too); from K and the "
            "gradient the score: together with K the agent's own LSTD solution "
            f"A⁻¹b, so the **whole value function**, {to_seven_digits(own_solution())} but for its sign and unit; "
            "how well each direction of it is known, AᵀS⁻¹A, so about how often each feature has been seen. "
            f"Between those rounds nothing more: the gradients follow from K and the score "
            f"{to_seven_digits(foretold())}",
            "a group; many steps a round: `--min-steps-per-round`; `full-history` or `compact`, which show less of "
            "the values outside the subspace",
        ),
        (
            "`full-history`: (b − A B w) wᵀ of all data so far, and second moment",
            "the first round in which each feature was seen; the head's direction, so the shape of the value "
            "function. **L = 1**: the state of "
            f"{share(states_one_by_one())} of the steps from the gradients alone, and with the states known every "
            f"reward, {exactly(rewards_one_by_one())} but for unit and constant; assume that all of it can be "
            "recovered",
            "a group; many steps a round: `--min-steps-per-round`",
        ),
        (
            "`full-history`: row sums, as root mean square times powers of two, in rounds 0 to 5, 7, 9, 12, 15, "
            "19, …",
            "how often each feature has been seen so far, to a factor of 1.5; how often in a round, with L = 20: "
            f"in {share(counts(20, exact=False))} of the rounds (exact row sums in every round would tell it in "
            f"{share(counts(20, exact=True))}, and with L = 1 every state in order)",
            "a group; `--row-scaled false`",
        ),
        (
            "`full-history`, at bases that the coordinator chooses",
            "A and b up to a factor, so how often each transition was taken and what it paid: within "
            f"{bases['any']} from {_CHOSEN} bases of any kind, which agents refuse; **within {bases['bounded']} "
            f"from {_CHOSEN} bases that the bound of the method allows**; within {bases['own']}, so not, from the "
            "bases that the method leads to",
            "a group. The bound does not prevent it; the basis then turns in every round, which the report of each "
            "round shows (`basis_movement`)",
        ),
    ]


def rows_of_all_methods() -> list[tuple[str, str, str]]:
    """What is sent whatever the method."""
    return [
        (
            "warm-up (`--warm-up-rounds`): two estimates, once",
            "the whole value function, twice",
            "leave it off, as is the default",
        ),
        (
            "TD error (`--share-td-error`)",
            "one number a round in the unit of the rewards: their scale, and when the environment changes",
            "leave it off, as is the default but in `cospan run`",
        ),
        (
            "who holds an improved policy (`--improve`), after each trial",
            "when a policy changes; the uploads after it are of the new one",
            "leave it off, as is the default",
        ),
        (
            "a group's or a relay's sum over n agents",
            "the sum of the above; of one agent what no other covers, as a feature that it alone sees",
            "many agents with the same features; the group or relay itself sees all",
        ),
        (
            "any of these as float32",
            "the same, to seven digits: rounding hides nothing",
            "",
        ),
        (
            "name, address, time of each message, fingerprint of the features",
            "who takes part and when, and how long its steps take",
            "",
        ),
    ]


def table() -> str:
    """The table of docs/security.md."""
    lines = ["| what is sent | what can be recovered | what helps |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows())]) + "\n"


def test_the_page_says_what_the_operator_finds() -> None:
    found = table()
    print(found)
    page = PAGE.read_text(encoding="utf-8")
    assert page.split(BEGIN)[1].split(END)[0] == found, "run this file, and put what it prints between the marks"


def test_before_and_now() -> None:
    """What exact row sums gave away, and what is left."""
    assert counts(1, exact=True) == counts(20, exact=True) == 1.0
    assert counts(20, exact=False) < 0.05
    assert counts(1, exact=False) < 0.5
    assert rewards_one_by_one() < 1e-9, "with the states known all else follows, so L = 1 is refused"
    assert states_one_by_one() < 0.75
    assert max(own_system("any")) < 0.02
    assert max(own_system("bounded")) < 0.1, "the page says that the bound does not prevent it"
    assert min(own_system("own")) > 0.5


def test_a_curvature_and_a_gradient_give_the_whole_value_function() -> None:
    assert own_solution() < 1e-5
    assert foretold() < 1e-5


def test_with_secure_sums_the_same_attacks_find_no_more_than_a_guess() -> None:
    """States, sums of rewards, counts and values of one agent among three; the table has what they find without."""
    log = logged_of_secure_sums(paper(20), 100)
    found, true = support(log), log.states[::20][:100] - 1
    assert np.mean((found == true)[true >= 0]) < 0.25, "a guess is right in a ninth of the rounds"
    with np.errstate(invalid="ignore"):
        sums = sums_of_rewards(log, paper(20))
    rewards = {t: log.rewards[20 * t : 20 * t + 20].sum() - 20 * log.gains[t] for t in sums}
    close = [abs(abs(sums[t]) - abs(rewards[t])) < 0.1 for t in sums]
    assert np.mean(close) < 0.25

    log = logged_of_secure_sums(compact(5), 60)
    rounds = [set((log.states[5 * t : 5 * t + 5] - 1).tolist()) - {-1} for t in range(60)]
    assert np.mean([a == b for a, b in zip(seen(log), rounds, strict=True)]) < 0.05

    log = logged_of_secure_sums(full_history(20), 60)
    rows = log.states[: 60 * 20].reshape(60, 20)
    counted = np.array([np.bincount(row, minlength=D + 1)[1:] for row in rows])[:, INNER]
    assert np.mean(np.abs(counts_of(held(log), 20) - counted).max(axis=1) < 0.5) < 0.05

    log = logged_of_secure_sums(practical(20), 30)
    sums_so_far, posterior = log.sums, log.posteriors[-1]
    assert sums_so_far is not None
    assert posterior is not None
    centred = sums_so_far.system - np.outer(sums_so_far.traces / sums_so_far.steps, posterior.changes)
    solution = np.linalg.solve(centred, sums_so_far.centred_rewards)
    errors = [
        angle(np.linalg.solve(*curvature_and_score(log, number)), solution) for number in (15, 18, 21, 25, 29)
    ]
    assert min(errors) > 0.3, "a random direction of nine dimensions is closer in one of a hundred cases"


def test_one_step_a_round_is_what_an_agent_refuses_by_default() -> None:
    from runs import specification

    from cospan.core.method import DEFAULT_MIN_STEPS

    makers: list[Callable[[int], Method]] = [paper, practical, compact, full_history]
    for preset in makers:
        assert below_floor(specification(preset(1)), DEFAULT_MIN_STEPS) is not None
        assert below_floor(specification(preset(DEFAULT_MIN_STEPS)), DEFAULT_MIN_STEPS) is None


def test_nothing_else_is_sent_between_the_rounds_of_row_sums() -> None:
    log = logged(full_history(20), 12)
    sent = [number for number, upload in enumerate(log.uploads) if upload.contribution.pooled is not None]
    assert sent == [0, 1, 2, 3, 4, 5, 7, 9]
    assert all(np.linalg.matrix_rank(to_dense(each.contribution.gradient)) <= 1 for each in log.uploads)


if __name__ == "__main__":
    print(table(), end="")
