"""The physics and the money of one microgrid, hour by hour, and the records it is made from.

All energies are in units of the site's mean load times one hour, so every site has mean load 1 and a
battery's capacity is in hours of mean load. Over one hour, power and energy have the same number.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float

DATA = files("cospan.client.workloads") / "data"
HOURS = 24

Quantity = TypeVar("Quantity", float, np.ndarray)
"""One site's hour (float) or many at once (an array); every formula here serves both."""


@dataclass(frozen=True, slots=True)
class Microgrid:
    """What is built at one site. Energies are per mean-load hour, costs in currency per kWh; 0 means it has
    none.

    Attributes:
        mean_load: mean of the site's load, kW: the unit of the energies here.
        usable: capacity of the battery above its least charge, hours of mean load.
        max_charge: largest power into the battery, at its terminals.
        max_discharge: largest power out of the battery, at its terminals.
        efficiency: energy stored / energy taken in, and energy given / energy taken from the store; in (0,
            1].
        cycle_cost: per kWh by which the stored energy changes, up or down.
        max_import: largest power from the grid.
        max_export: largest power into the grid.
        genset_max: largest power of the generator.
        genset_min: least power of the generator when it runs.
        genset_cost: per kWh generated, fuel and CO2.
        loss_of_load_cost: per kWh of load that is not served.
        overgeneration_cost: per kWh that is curtailed.
    """

    mean_load: float
    usable: float
    max_charge: float
    max_discharge: float
    efficiency: float
    cycle_cost: float
    max_import: float
    max_export: float
    genset_max: float
    genset_min: float
    genset_cost: float
    loss_of_load_cost: float
    overgeneration_cost: float


@dataclass(frozen=True, eq=False, slots=True)
class Profiles:
    """A site's year, one row per day and one column per hour of it; shape (365, 24), float64.

    Attributes:
        net_load: load − sun, in units of the mean load.
        grid_up: 1 where the grid is there to be used, else 0; 0 throughout at a site without a connection.
        import_cost: per kWh imported, price and CO2; 0 at a site without a connection.
        export_price: per kWh exported; 0 at a site without a connection.
    """

    net_load: Float[np.ndarray, "days 24"]
    grid_up: Float[np.ndarray, "days 24"]
    import_cost: Float[np.ndarray, "days 24"]
    export_price: Float[np.ndarray, "days 24"]


class Flows(NamedTuple, Generic[Quantity]):
    """Where the energy of one hour went; all but `stored_change` are 0 or more.

    net load + charge − discharge = imported + generated + unserved − exported − curtailed.
    """

    charge: Quantity
    discharge: Quantity
    stored_change: Quantity
    imported: Quantity
    exported: Quantity
    generated: Quantity
    unserved: Quantity
    curtailed: Quantity


class Arithmetic(NamedTuple, Generic[Quantity]):
    """The smaller and the larger of two quantities; floats and arrays need different functions for it."""

    minimum: Callable[[Quantity, Quantity | float], Quantity]
    maximum: Callable[[Quantity, Quantity | float], Quantity]


ONE: Arithmetic[float] = Arithmetic(minimum=min, maximum=max)
MANY: Arithmetic[np.ndarray] = Arithmetic(minimum=np.minimum, maximum=np.maximum)


def dispatch(
    grid: Microgrid,
    level: Quantity,
    action: Quantity,
    net_load: Quantity,
    grid_up: Quantity,
    *,
    by: Arithmetic[Quantity],
) -> Flows[Quantity]:
    """What flows in one hour: the battery as told, then the grid, then the generator; the rest is lost or
    curtailed.

    The battery takes or gives what was asked as far as its power limits and what it holds allow. A deficit
    that is left is imported up to the limit while the grid is up; then the generator runs, at its least power
    or more, and what it makes too much is curtailed; what is still missing is load not served. A surplus that
    is left is exported up to the limit while the grid is up, and the rest is curtailed.

    Args:
        grid: the site.
        level: energy in the battery above its least charge, 0 … `grid.usable`.
        action: the battery's power as a fraction of its largest charge (above 0) or discharge (below 0), −1 …
            1.
        net_load: load − sun.
        grid_up: 1 where the grid can be used, else 0.
        by: `ONE` for floats, `MANY` for arrays.
    """
    minimum, maximum = by
    charge = minimum(maximum(action, 0.0) * grid.max_charge, (grid.usable - level) / grid.efficiency)
    discharge = minimum(maximum(-action, 0.0) * grid.max_discharge, level * grid.efficiency)
    residual = net_load + charge - discharge
    deficit = maximum(residual, 0.0)
    surplus = maximum(-residual, 0.0)
    imported = minimum(deficit, grid.max_import * grid_up)
    exported = minimum(surplus, grid.max_export * grid_up)
    missing = deficit - imported
    generated = minimum(maximum(missing, grid.genset_min), grid.genset_max) * (missing > 0.0)
    stored_change = charge * grid.efficiency - discharge / grid.efficiency
    unserved = maximum(missing - generated, 0.0)
    curtailed = surplus - exported + maximum(generated - missing, 0.0)
    return Flows(charge, discharge, stored_change, imported, exported, generated, unserved, curtailed)


def hourly_cost(grid: Microgrid, flows: Flows[Quantity], import_cost: Quantity, export_price: Quantity) -> Quantity:
    """What one hour costs, in currency per mean-load kWh.

    imports · (price + CO2) − exports · price + generated · (fuel + CO2) + |stored energy's change| · cycle
    cost + lost load · its cost + curtailed energy · its cost.
    """
    cost: Quantity = (
        flows.imported * import_cost
        - flows.exported * export_price
        + flows.generated * grid.genset_cost
        + abs(flows.stored_change) * grid.cycle_cost
        + flows.unserved * grid.loss_of_load_cost
        + flows.curtailed * grid.overgeneration_cost
    )
    return cost


def battery_first(grid: Microgrid, net_load: Quantity, *, by: Arithmetic[Quantity]) -> Quantity:
    """The action that charges with the whole surplus or discharges for the whole deficit, within −1 … 1."""
    charge = by.minimum(by.maximum(-net_load, 0.0) / grid.max_charge, 1.0)
    discharge = by.minimum(by.maximum(net_load, 0.0) / grid.max_discharge, 1.0)
    action: Quantity = charge - discharge
    return action


@cache
def _parameters() -> list[dict[str, float]]:
    """One row for each site; an empty cell is 0."""
    lines = (DATA / "parameters.csv").read_text(encoding="utf-8").splitlines()
    return [{key: float(cell or 0) for key, cell in row.items()} for row in csv.DictReader(lines)]


@cache
def _series(name: str) -> Float[np.ndarray, "sites hours"]:
    """One of the arrays of profiles.npz; each is decompressed once in a process, and only when asked for."""
    with (DATA / "profiles.npz").open("rb") as stream, np.load(stream) as archive:
        series: np.ndarray = archive[name]
    return series


def site_count() -> int:
    """How many sites there are records of."""
    return len(_parameters())


def load_site(index: int) -> tuple[Microgrid, Profiles]:
    """Site `index` of the records, 0 ≤ index < `site_count()`, brought to units of its mean load."""
    row = _parameters()[index]
    load = _series("load")[index].astype(np.float64)
    mean = float(load.mean())
    net_load = (load - _series("pv")[index]) / mean
    connected = row["grid_max_import"] > 0.0
    microgrid = Microgrid(
        mean_load=mean,
        usable=(row["battery_capacity"] - row["battery_min_capacity"]) / mean,
        max_charge=row["battery_max_charge"] / mean,
        max_discharge=row["battery_max_discharge"] / mean,
        efficiency=row["battery_efficiency"],
        cycle_cost=row["battery_cycle_cost"],
        max_import=row["grid_max_import"] / mean,
        max_export=row["grid_max_export"] / mean,
        genset_max=row["genset_max_power"] / mean,
        genset_min=row["genset_min_power"] / mean,
        genset_cost=row["genset_cost"] + row["genset_co2"] * row["co2_cost"],
        loss_of_load_cost=row["loss_of_load_cost"],
        overgeneration_cost=row["overgeneration_cost"],
    )
    none = np.zeros_like(net_load)
    profiles = Profiles(
        net_load=_days(net_load),
        grid_up=_days(_series("grid_up")[index] if connected else none),
        import_cost=_days(
            _series("import_price")[index] + row["co2_cost"] * _series("grid_co2")[index] if connected else none
        ),
        export_price=_days(_series("export_price")[index] if connected else none),
    )
    return microgrid, profiles


def _days(series: Float[np.ndarray, " hours"]) -> Float[np.ndarray, "days 24"]:
    return series.astype(np.float64).reshape(-1, HOURS)
