"""`cospan rank`: the number of dimensions that the value functions of a fleet share, with its uncertainty."""

import json as json_text
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cospan.cli.lab.compare import progress_lines
from cospan.cli.lab.rank_estimation import RESAMPLES, Ranking, rank_document, ranking_of, simulate_agents
from cospan.cli.output.table import table
from cospan.cli.processes.this_process import claim_stdout, use_one_blas_thread
from cospan.cli.settings.extras import require
from cospan.cli.settings.run_specification import plan_with_workload
from cospan.cli.settings.run_warnings import advise, of_features
from cospan.core.run_fields import RunFields
from cospan.core.specification import RunSpecification
from cospan.experiments.runner import now_and_then
from cospan.wire.errors import InvalidValueError

_ROUNDS = 300
_AGENTS = 40
_BELOW_NOISE = 2
"""Number of noise components that are shown."""


def rank_here(
    workload: str,
    share: float,
    flags: Mapping[str, Any],
    config: Path | None,
    *,
    json: bool = False,
    quiet: bool = False,
) -> int:
    """Simulates and ranks in this process.

    Raises:
        CospanError: the simulation cannot begin, or the workload broke its contract.
    """
    data = claim_stdout() if json else None
    require("cospan rank", ("scipy",), "study")
    plan = plan_with_workload(flags, config, reference=workload, spec_file=None, rounds=_ROUNDS)
    plan.close()  # simulated sites are made from the workload
    spec, loaded = plan.specification, plan.workload
    assert loaded is not None
    if "agents" not in plan.settings.of(RunFields) and loaded.max_agents is None:
        spec = replace(spec, agents=_AGENTS)
    _check(spec, share)
    use_one_blas_thread()
    on_agent = now_and_then(progress_lines(quiet=quiet), f"simulating {spec.workload}: agent", spec.agents)
    samples = simulate_agents(loaded, spec, on_agent)
    assert plan.site is not None
    advise(of_features(spec, plan.site, samples.system))
    found = ranking_of(samples, share)
    if data is not None:
        print(json_text.dumps(rank_document(spec, found), allow_nan=False), file=data, flush=True)
    else:
        print("\n".join(lines_of(spec, found)))
    return 0


def _check(spec: RunSpecification, share: float) -> None:
    for name, value, why in (
        ("agents", spec.agents, "a subspace is what several agents share"),
        ("rounds", spec.rounds, "each agent estimates its values from two halves of them"),
    ):
        if value < 2:
            raise InvalidValueError(f"{name} is {value}; {why}, so it must be 2 or more")
    if not 0.0 < share <= 1.0:
        raise InvalidValueError(f"share is {share}; it must be above 0, at most 1")


def lines_of(spec: RunSpecification, found: Ranking) -> list[str]:
    """The printed lines."""
    document = rank_document(spec, found)
    above, noise = document["above_noise"], document["noise"]
    rows = [
        (
            str(each["component"]),
            f"{each['share']:.2%}",
            "" if each["cumulative"] is None else f"{each['cumulative']:.2%}",
            f"{each['low']:.2%} to {each['high']:.2%}",
        )
        for each in document["components"][: above + _BELOW_NOISE]
    ]
    steps = spec.rounds * spec.method.steps_per_round
    within = "" if found.overall is None else " within equal exogenous parts"
    return [
        f"{spec.workload}: {spec.agents} agents, {steps:,} steps each, d = {spec.feature_dim}; "
        f"shares of the variance of the value functions{within}",
        "",
        *table(("component", "share", "cumulative", "95 % over agents"), rows, numbers=(0, 1, 2)),
        "",
        f"noise: the most negative component is {-noise:.2%}; {above} stand{'s' if above == 1 else ''} out of it",
        _suggestion(found),
        *_limit_of_noise(found, noise),
        *_caveat(found),
    ]


def _limit_of_noise(found: Ranking, noise: float) -> list[str]:
    """That the noise hides dimensions, where it does: they hold as much as the rank may leave out."""
    if not found.rank or noise <= 1.0 - found.share:
        return []
    return [
        f"caveat: the noise ({noise:.2%}) exceeds the {1.0 - found.share:.2%} that the rank may leave out, so more "
        "dimensions may matter: simulate more rounds or more agents"
    ]


def _caveat(found: Ranking) -> list[str]:
    """What the shares do not tell where no part of the observation is declared to be exogenous."""
    if found.overall is not None:
        return []
    if not found.hidden:
        return [
            "caveat: shares are of the variance over all states; if no action changes a part of the observation, "
            "as a clock or the weather, declare it (Workload.exogenous)"
        ]
    worst = found.hidden[0]
    return [
        f"caveat: the rank may be too small for decisions. {worst.parts} explains {worst.explained:.1%} of the "
        f"variance of the values, and among states where that is equal {100.0 * found.share:.6g} % take rank "
        f"{worst.rank}, not {found.rank}. If no action changes it, as a clock or the weather, decisions compare "
        f"such states alone: declare it (Workload.exogenous), or take rank {worst.rank}"
    ]


def _suggestion(found: Ranking) -> str:
    if not found.rank:
        return "suggested rank: none, because no component exceeds the noise; simulate more rounds or more agents"
    within = found.spectrum.rank(found.share)
    if within < found.rank:
        return (
            f"suggested rank: {found.rank}, which the variance over all states takes; within equal exogenous parts "
            f"{within or 'none'} stands out of the noise; {found.agreement:.0%} of {RESAMPLES} resamples of the "
            "agents say the same"
        )
    return (
        f"suggested rank: {found.rank}, the smallest that holds {100.0 * found.share:.6g} % of what stands out; "
        f"{found.agreement:.0%} of {RESAMPLES} resamples of the agents say the same"
    )
