"""New sites: folds, and the best variant of those alone."""

import dataclasses

import numpy as np

from cospan.experiments.experiment import load
from cospan.experiments.kinds.sharing.against_alone import SiteErrors
from cospan.experiments.kinds.sharing.newcomers import best_variant, tasks
from cospan.experiments.runner import Point


def test_every_site_is_new_once_in_as_many_seeds_as_there_are_folds() -> None:
    plan, _ = load("new-site")
    found = tasks(plan)[: plan.options["folds"]]
    assert sorted(site for task in found for site in task.newcomers) == list(range(plan.agents))
    assert all(not set(task.fleet) & set(task.newcomers) for task in found)


def test_the_best_alone_is_chosen_for_each_amount_of_data() -> None:
    point = Point("", "LSTD alone · 0", 1, 4, 3, 30, 0, 1.0)
    points = [
        point,
        dataclasses.replace(point, method="LSTD alone · 1", value_error=2.0),
        dataclasses.replace(point, method="TD alone · 0", value_error=0.5),
        dataclasses.replace(point, rounds=7, value_error=2.0),
        dataclasses.replace(point, rounds=7, method="LSTD alone · 1", value_error=1.0),
        dataclasses.replace(point, rounds=7, method="TD alone · 0", value_error=3.0),
    ]
    sites = SiteErrors.of(points)
    for names, rounds, best in (
        (["LSTD alone"], 3, 1.0),
        (["LSTD alone", "TD alone"], 3, 0.5),
        (["LSTD alone"], 7, 1.0),
    ):
        np.testing.assert_array_equal(best_variant(points, names, rounds, sites), [[best]])
