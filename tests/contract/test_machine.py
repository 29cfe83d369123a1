"""What the coordinator's machine promises of its own form: a small state, and one table of transitions."""

import dataclasses
import importlib
import pkgutil
import runpy
from itertools import product
from pathlib import Path
from typing import get_args

import pytest

from cospan.server import machine
from cospan.server.machine.dispatch import TRANSITIONS
from cospan.server.machine.events import Event
from cospan.wire.messages import RunPhase

REPOSITORY = Path(__file__).resolve().parents[2]
MODULES = [
    importlib.import_module(found.name) for found in pkgutil.walk_packages(machine.__path__, f"{machine.__name__}.")
]
DATACLASSES = {
    each
    for module in MODULES
    for each in vars(module).values()
    if isinstance(each, type) and dataclasses.is_dataclass(each) and each.__module__.startswith(machine.__name__)
}


def test_no_dataclass_of_the_machine_has_more_than_twelve_fields() -> None:
    assert len(DATACLASSES) > 30
    sizes = {each.__name__: len(dataclasses.fields(each)) for each in DATACLASSES}
    assert {name: size for name, size in sizes.items() if size > 12} == {}


def test_the_table_has_one_transition_for_each_phase_and_event() -> None:
    cells = sorted((each.event.__name__, phase.name) for each in TRANSITIONS for phase in each.phases)
    assert cells == sorted((event.__name__, phase.name) for event, phase in product(get_args(Event), RunPhase))
    assert all(each.effects for each in TRANSITIONS)


def test_the_architecture_page_has_the_table_of_the_machine() -> None:
    script = REPOSITORY / "docs" / "scripts" / "state_table.py"
    if not script.exists():
        pytest.skip("the wheel has no documentation")
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(script))["with_table"](page) == page, "run 'make state-table'"
