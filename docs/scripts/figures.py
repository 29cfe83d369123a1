"""Draws the figures of docs/figures: `make figures`. Each is made by the code that its page is about.

The shops are those of examples/my_own_environment.py, whose true values a linear system gives.
"""

import csv
import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from my_own_environment import CAPACITY, FEATURES, make_shop

from cospan.client.features import FourierFeatures, RadialBasisFeatures
from cospan.client.workload import FeatureMap
from cospan.core.exact_solutions import differential_value, stationary_distribution, td_system
from cospan.simulation import Fleet

FIGURES = Path(__file__).resolve().parents[1] / "figures"
STOCKS = np.arange(CAPACITY + 1)
TEAL, ORANGE, GREY, BLUE = "#00796b", "#d9480f", "#8a8f98", "#3b6fb6"
STYLE = {
    "svg.hashsalt": "cospan",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


@contextmanager
def _figure(name: str, columns: int, height: float = 2.7, width: float = 8.4) -> Iterator[list[plt.Axes]]:
    """Axes side by side, written to docs/figures without a date: the same drawing gives the same bytes."""
    with mpl.rc_context(STYLE):
        figure: Figure = plt.figure(figsize=(width, height), facecolor="white")
        yield [figure.add_subplot(1, columns, 1 + column) for column in range(columns)]
        figure.savefig(FIGURES / f"{name}.svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)


def shop_chain(demand: float, price: float, order: Callable[[int], int]) -> tuple[np.ndarray, np.ndarray]:
    """P (41 × 41) and R (41,) of one shop under a rule that says how many pieces are ordered at each stock."""
    transition, rewards = np.zeros((len(STOCKS), len(STOCKS))), np.zeros(len(STOCKS))
    sales = np.array([math.exp(-demand + n * math.log(demand) - math.lgamma(n + 1)) for n in range(120)])
    for stock in STOCKS:
        pieces = order(int(stock))
        on_hand = min(CAPACITY, int(stock) + pieces)
        for wanted, chance in enumerate(sales / sales.sum()):
            sold = min(on_hand, wanted)
            transition[stock, on_hand - sold] += chance
            rewards[stock] += chance * price * sold
        rewards[stock] -= pieces + 0.05 * on_hand
    return transition, rewards


def _shop(index: int) -> tuple[np.ndarray, np.ndarray]:
    """P and R of a shop of the example, under its own policy."""
    site = make_shop(index, 0)
    rng = np.random.default_rng(0)
    env = vars(site.env)
    return shop_chain(
        env["_mean_demand"], env["_price"], lambda stock: int(site.policy(np.array([float(stock)]), rng))
    )


def _visited(stationary: np.ndarray) -> np.ndarray:
    """The stocks that are met at least once in ten thousand days."""
    return np.flatnonzero(stationary > 1e-4)


def _weights(features: FeatureMap, chain: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """What TD tends to with these features; of least norm, for stocks that are never met leave some open."""
    system, right = td_system(features.batch(STOCKS[:, None].astype(float)), *chain)
    return np.asarray(-np.linalg.lstsq(system, right, rcond=1e-9)[0])


def _fitted(features: FeatureMap, chain: tuple[np.ndarray, np.ndarray], stationary: np.ndarray) -> np.ndarray:
    """The value function of `_weights`, less its mean over the days."""
    values = features.batch(STOCKS[:, None].astype(float)) @ _weights(features, chain)
    return np.asarray(values - stationary @ values)


def features_figure() -> None:
    """The same shop's value with three feature maps: too coarse, right, and the wrong kind."""
    chain = _shop(0)
    stationary, truth = stationary_distribution(chain[0]), differential_value(*chain)
    shown = _visited(stationary)
    choices: list[tuple[str, FeatureMap, str]] = [
        ("3 centres", RadialBasisFeatures([0.0], [CAPACITY], centres=3), ORANGE),
        ("12 centres", FEATURES, TEAL),
        ("cosines up to order 3", FourierFeatures([0.0], [CAPACITY], order=3), ORANGE),
    ]
    with _figure("features", 3) as axes:
        for ax, (title, features, colour) in zip(axes, choices, strict=True):
            values = _fitted(features, chain, stationary)
            error = stationary @ (values - truth) ** 2 / (stationary @ truth**2)
            ax.plot(shown, truth[shown], color=GREY, lw=3, alpha=0.6, label="true")
            ax.plot(shown, values[shown], color=colour, lw=1.6, label="learnt at best")
            ax.set(title=f"{title}: error {error:.2g}", xlabel="stock at closing time")
        axes[0].set_ylabel("value, less the mean")
        axes[0].legend(loc="lower right")


def policy_figure() -> None:
    """Where two policies go, and what is learnt of the value from 4,000 days of each."""
    demand, price = 9.0, 2.0
    rules: list[tuple[str, Callable[[int], int]]] = [
        ("orders below 10, up to 20", lambda stock: 20 - stock if stock < 10 else 0),
        ("fills up every night", lambda stock: CAPACITY - stock),
    ]
    with _figure("policy", 2) as axes:
        for ax, (title, order) in zip(axes, rules, strict=True):
            transition, rewards = shop_chain(demand, price, order)
            stationary = stationary_distribution(transition)
            ax.bar(STOCKS, stationary, color=BLUE, alpha=0.35, width=0.9)
            ax.set(title=title, xlabel="stock at closing time", ylim=(0, 0.16))
            ax.tick_params(axis="y", colors=BLUE)
            beside = ax.twinx()
            beside.spines["top"].set_visible(False)
            truth = differential_value(transition, rewards)
            beside.plot(STOCKS, truth, color=GREY, lw=3, alpha=0.6, label="true value")
            shown = np.array(STOCKS, dtype=float)
            learnt = _from_days(transition, rewards, stationary)
            beside.plot(shown, learnt, color=TEAL, lw=1.6, label="learnt from 4,000 days")
            beside.set_ylim(-14, 24)
        axes[0].set_ylabel("share of the days (bars)", color=BLUE)
        beside.set_ylabel("value, less the mean")
        beside.legend(loc="upper left")


def _from_days(transition: np.ndarray, rewards: np.ndarray, stationary: np.ndarray) -> np.ndarray:
    """Least-squares TD from 4,000 days of the chain; where it never was, the features go on as they like."""
    rng = np.random.default_rng(1)
    days = [int(STOCKS[-1] // 2)]
    for _ in range(4000):
        days.append(int(rng.choice(len(STOCKS), p=transition[days[-1]])))
    phi = FEATURES.batch(np.array(days, dtype=float)[:, None])
    earned = rewards[days[:-1]]
    system = phi[:-1].T @ (phi[1:] - phi[:-1])
    weights = np.linalg.lstsq(system, -phi[:-1].T @ (earned - earned.mean()), rcond=1e-6)[0]
    values = FEATURES.batch(STOCKS[:, None].astype(float)) @ weights
    return np.asarray(values - stationary @ values)


def subspace_figure() -> None:
    """Twelve tanks of docs/start.md: what they learnt, the basis that they found, and one put together."""
    levels = np.linspace(0.0, 10.0, 101)
    tanks = _module_of(FIGURES.parent / "start.md", "my_fleet.py")["tanks"]
    learnt = Fleet(tanks, agents=12, rounds=600, seed=1).run()
    values = np.stack([agent.values(levels[:, None]) for agent in learnt.agents], axis=1)
    values -= values[-1]
    chosen = learnt.agents[int(np.argmin(values[0]))]
    turned, _, _ = np.linalg.svd(
        learnt.basis @ learnt.basis.T @ np.stack([a.weights for a in learnt.agents], axis=1)
    )
    basis = turned[:, : learnt.basis.shape[1]]  # the same subspace, its directions in the order of their use
    parts = chosen.features.batch(levels[:, None]) @ basis
    head = basis.T @ chosen.weights
    with _figure("subspace", 3) as axes:
        axes[0].plot(levels, values, color=GREY, lw=1)
        axes[0].plot(levels, values[:, np.argmin(values[0])], color=TEAL, lw=2)
        axes[0].set(title="values of twelve tanks", ylabel="value, against a full tank")
        for column, colour in enumerate((TEAL, ORANGE, BLUE)):
            axes[1].plot(levels, parts[:, column] - parts[-1, column], color=colour)
        axes[1].set(title="three shared functions: the basis")
        joined = parts @ head
        axes[2].plot(levels, values[:, np.argmin(values[0])], color=GREY, lw=3, alpha=0.6, label="that tank")
        axes[2].plot(levels, joined - joined[-1], color=TEAL, lw=1.6, label="three numbers")
        axes[2].set(title=f"head ({', '.join(f'{number:.1f}' for number in head)})")
        axes[2].legend(loc="lower right")
        for ax in axes:
            ax.set_xlabel("level")


def _module_of(page: Path, name: str) -> dict[str, Any]:
    """The names that a page's file defines."""
    found = re.search(
        rf'```python title="{re.escape(name)}"\n(.*?)```', page.read_text(encoding="utf-8"), re.DOTALL
    )
    assert found, f"{page} has no {name}"
    names: dict[str, Any] = {}
    exec(compile(found[1], name, "exec"), names)
    return names


def rounds_figure() -> None:
    """The error of a fleet of queues over the rounds, beside that of agents who learn alone from the same data."""
    with tempfile.TemporaryDirectory() as folder:
        _cospan(
            "run",
            "queues",
            "--agents",
            "8",
            "--rounds",
            "300",
            "--in-process",
            "--quiet",
            "--output",
            f"{folder}/run",
        )
        with (Path(folder) / "run" / "rounds.csv").open(encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    with _figure("rounds", 1, width=5.6) as (ax,):
        rounds = [int(row["round"]) + 1 for row in rows]
        ax.loglog(
            rounds,
            [float(row["td_alone_error"]) for row in rows],
            color=GREY,
            label="each alone (TD, best step)",
        )
        ax.loglog(rounds, [float(row["value_error"]) for row in rows], color=TEAL, lw=1.8, label="together")
        ax.set(xlabel="rounds", ylabel="relative value error", title="eight queues, median over the agents")
        ax.legend(loc="lower left")


def rank_figure() -> None:
    """The spectra that `cospan rank` finds: of the example's shops and of the synthetic fleet, whose rank is 3."""
    with _figure("rank", 2) as axes:
        for ax, (title, workload) in zip(
            axes,
            (("shops of the example", "my_own_environment:shops"), ("synthetic, true rank 3", "synthetic")),
            strict=True,
        ):
            found = json.loads(_cospan("rank", workload, "--quiet", "--json"))
            parts = found["components"][:8]
            at = [part["component"] for part in parts]
            shares = [max(part["share"], 1e-6) for part in parts]
            chosen = [TEAL if component <= found["rank"] else GREY for component in at]
            ax.bar(at, shares, color=chosen)
            ax.axhline(found["noise"], color=ORANGE, lw=1, ls="--", label="noise")
            ax.set(
                title=f"{title}: suggested rank {found['rank']}", yscale="log", ylim=(1e-5, 2), xlabel="dimension"
            )
        axes[0].set_ylabel("share of the variance")
        axes[1].legend(loc="upper right")


def _cospan(*words: str) -> str:
    """What `cospan` prints, run where the example is."""
    command = [sys.executable, "-m", "cospan.cli.main", *words]
    examples = FIGURES.parents[1] / "examples"
    return subprocess.run(command, cwd=examples, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    FIGURES.mkdir(exist_ok=True)
    for draw in (features_figure, policy_figure, subspace_figure, rounds_figure, rank_figure):
        draw()
