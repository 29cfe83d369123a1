"""What better policies are worth: queues and microgrids, with the fleet and alone, with the gate and without.

    python -m cospan.simulation.better_decisions queues --seeds 1 2 3 --out queues.json
    python -m cospan.simulation.better_decisions microgrids --seeds 1 --arms joint alone

Queues begin at the policy that accepts with probability one half; their gains are exact, as shares of the optimum.
Microgrids begin at battery-first; their costs are of test days that no learning used, the same for every policy, as
multiples of battery-first's. A JSON line is printed after every step.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.decisions.policy import GreedyPolicy
from cospan.client.learning.run_config import specify
from cospan.client.workloads import microgrids, queues
from cospan.experiments.decisions.policy_tests import microgrid_cost, queue_worth
from cospan.simulation.improvement import Improvement, ImprovementSettings

ARMS: dict[str, dict[str, Any]] = {
    "joint": {},
    "alone": {"alone": True},
    "joint-ungated": {"gate": False},
    "alone-ungated": {"gate": False, "alone": True},
}
_WORKLOADS = {
    # 10,000 steps a queue, and 4 × 90 days a microgrid, the trial among them.
    "queues": (queues.workload, 40, 4, ImprovementSettings(steps=4, rounds=100, trial_rounds=25)),
    "microgrids": (microgrids.workload, 25, 12, ImprovementSettings(steps=4, rounds=60, trial_rounds=30)),
}
_TEST_SEED = 20_260_307


def queue_shares(policies: Sequence[GreedyPolicy], seed: int) -> Float[np.ndarray, " n"]:
    """Gain of each policy as a share of its queue's optimum."""
    return np.array([queue_worth(policy, seed)[0] for policy in policies])


def microgrid_costs(policies: Sequence[GreedyPolicy], seed: int) -> Float[np.ndarray, " n"]:
    """Cost of a test day under each policy, in currency per mean-load day."""
    return np.array([microgrid_cost(index, policy, _TEST_SEED + seed) for index, policy in enumerate(policies)])


def steps_of(workload: str, arm: str, seed: int, agents: int | None = None) -> Iterator[dict[str, Any]]:
    """One run: what its policies are worth before it and after each step."""
    made, sites, rank, settings = _WORKLOADS[workload]
    spec = specify(workload, agents=agents or sites, rounds=1, seed=seed, rank=rank)
    run = Improvement(made, spec, replace(settings, **ARMS[arm]))
    measure = queue_shares if workload == "queues" else microgrid_costs
    try:
        worth = before = measure(_all(run.result.policies), seed)
        for step in range(settings.steps + 1):
            found = run.step() if step else ()
            if any(each.taken for each in found):
                worth = measure(_all(run.result.policies), seed)
            yield {
                "workload": workload,
                "arm": arm,
                "seed": seed,
                "step": step,
                "taken": sum(each.taken for each in found),
                "worth": worth.round(5).tolist(),
                "summary": float(worth.mean() if workload == "queues" else worth.sum() / before.sum()),
                "worst": float(worth.min() if workload == "queues" else (worth / before).max()),
                "decisions": [each.as_dict() for each in found],
            }
    finally:
        run.close()


def _all(policies: Sequence[GreedyPolicy | None]) -> list[GreedyPolicy]:
    """Those of workloads whose sites all have decisions."""
    return [policy for policy in policies if policy is not None]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the arms one after another."""
    parser = argparse.ArgumentParser(description="What better policies are worth.")
    parser.add_argument("workload", choices=sorted(_WORKLOADS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="seeds of the runs")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=["joint", "alone"])
    parser.add_argument(
        "--agents", type=int, default=None, help="number of sites; default: 40 queues, 25 microgrids"
    )
    parser.add_argument("--out", type=Path, default=None, help="file for all of it, as JSON")
    chosen = parser.parse_args(arguments)
    found = []
    for seed in chosen.seeds:
        for arm in chosen.arms:
            for each in steps_of(chosen.workload, arm, seed, chosen.agents):
                found.append(each)
                shown = {name: each[name] for name in ("arm", "seed", "step", "taken", "summary", "worst")}
                print(json.dumps(shown), flush=True)
    if chosen.out is not None:
        chosen.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
