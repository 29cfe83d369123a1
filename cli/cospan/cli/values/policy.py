"""`cospan policy`: what an agent's policy does at one observation, and what it knows of every action there.

`cospan export --policy` writes the same policy to a file of its own (`GreedyPolicy.load`).
"""

import json as json_text
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cospan.cli.commands.export import check_output, folder_of
from cospan.cli.output.table import MOST_ROWS, table
from cospan.cli.run_folder.layout import RunFolder
from cospan.cli.values.coordinates import coordinates_of, fixed, table_of
from cospan.cli.values.learnt import check_there, index_of, workload_of
from cospan.cli.values.visited import typical, visited
from cospan.client.decisions.improver import given_policy
from cospan.client.decisions.policy import INTERVAL, ActionValue, GreedyPolicy
from cospan.client.environment.ownership import close_site
from cospan.client.environment.workload_loader import make_site
from cospan.client.files.agent_result import AgentResult
from cospan.client.files.group_file import member_of
from cospan.client.files.policy_values import HELD, loaded_decisions, loaded_policy
from cospan.client.files.result_file import largest, load_result
from cospan.client.workload import AnySite, Site
from cospan.core.specification import SITE_PREFIX, RunSpecification
from cospan.core.statistics import known
from cospan.wire.console import say
from cospan.wire.errors import InvalidValueError, RunFileError
from cospan.wire.files.spec_file import load_spec
from cospan.wire.text import and_more

_STEPS = 1000
"""Of the simulated stretch that shows what is typical of a site."""


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """Options of `cospan policy`.

    Attributes:
        site: name or index.
        at: numbers of the observation, as "hour=7,charge=0.6"; the others are those of a typical visited one.
        workload: of the run, where it is not built in.
        json: whether JSON is printed.
    """

    site: str
    at: str
    workload: str | None
    json: bool


def tell_policy(run: Path, options: PolicyOptions) -> int:
    """Prints which policy an agent holds and why, and with `at` what it does there; the exit code.

    Raises:
        CospanError: there is no such run, site or coordinate, or the run has no improvement steps.
    """
    folder = folder_of(run)
    spec = load_spec(folder.spec)
    index, name = index_of(options.site)
    result = _file_of(folder, name, spec)
    site = make_site(workload_of(options.workload, spec), index, spec.seed)
    try:
        policy = _held(result, site, spec, index)
        decisions = loaded_decisions(result)
        document: dict[str, Any] = {
            "site": name,
            "label": result.text("label"),
            "held_step": next((each.step + 1 for each in reversed(decisions) if each.taken), None),
            "decisions": [each.as_dict() for each in decisions],
        }
        found: tuple[ActionValue, ...] = ()
        if options.at:
            observation, numbers = _observation(site, options.at, index, spec.seed)
            document["at"] = numbers
            document["draws"] = bool(policy.draws(np.asarray(observation)[None])[0])
            document["action"] = None if document["draws"] else _plain(policy(observation))
            found = () if policy.is_given else policy.explain(observation)
            document["actions"] = [_action(each) for each in found]
    finally:
        close_site(site)
    if options.json:
        print(json_text.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
        return 0
    for line in _lines(document, found):
        say(line, error=False)
    return 0


def export_policy(run: Path, site: str, output: Path, *, workload: str | None, force: bool) -> int:
    """Writes the policy that an agent holds as an npz file; the exit code.

    Raises:
        CospanError: there is no such run or agent, the run has no improvement steps, or the file exists.
    """
    folder = folder_of(run)
    check_output(output, force=force, store=folder.store)
    spec = load_spec(folder.spec)
    index, name = index_of(site)
    result = _file_of(folder, name, spec)
    made = make_site(workload_of(workload, spec), index, spec.seed)
    try:
        policy = _held(result, made, spec, index)
    finally:
        close_site(made)
    policy.save(output)
    which = "the given policy" if policy.is_given else "the policy"
    print(f"wrote {output}: {which} that {name} holds", file=sys.stderr)
    return 0


def _file_of(folder: RunFolder, name: str, spec: RunSpecification) -> AgentResult:
    """What an agent has learnt, from its file or that of its group."""
    if not spec.improve:
        raise InvalidValueError(
            f"the run in {folder.path} has no improvement steps, so its agents hold the policies of their sites; "
            "start one with --improve"
        )
    check_there(folder, name)
    path = folder.agent(name)
    if path.exists():
        return load_result(path, most_bytes=largest(spec))
    for group in sorted(folder.agents.glob("group-*.npz")):
        found = member_of(group, name)
        if found is not None:
            return found
    raise RunFileError(f"{folder.path} has no agent {name!r}")


def _held(result: AgentResult, site: AnySite, spec: RunSpecification, index: int) -> GreedyPolicy:
    """The policy in a file."""
    if problem := result.text("policy_problem"):
        raise InvalidValueError(problem)
    given = given_policy(site, spec, index)
    learnt_with = result.text("feature_fingerprint")
    if learnt_with != given.features.fingerprint:
        raise RunFileError(
            f"{SITE_PREFIX}{index} was learnt with the features {learnt_with[:80]!r}, and this site has "
            f"{given.features.fingerprint!r}; name the workload of that run with --workload"
        )
    return loaded_policy(result, HELD, given)


def _observation(site: AnySite, text: str, index: int, seed: int) -> tuple[Any, dict[str, float]]:
    """A typical visited observation with the numbers of a text."""
    assert isinstance(site, Site)
    coordinates = coordinates_of(site.env)
    numbers = fixed(coordinates, text)
    met = visited(site, _STEPS, index=index, seed=seed)
    observation = met[typical(table_of(coordinates, met))]
    for coordinate, number in numbers.items():
        observation = coordinate.changed(observation, number)
    return observation, {each.name: each.of(observation) for each in coordinates}


def _plain(action: Any) -> Any:
    return action.tolist() if isinstance(action, np.ndarray | np.generic) else action


def _action(each: ActionValue) -> dict[str, Any]:
    interval = [known(each.low), known(each.high)]
    return {
        "action": _plain(each.action),
        "advantage": each.advantage,
        "interval": None if None in interval else interval,
        "chosen": each.chosen,
        "is_rule": each.is_rule,
    }


def _lines(document: dict[str, Any], found: tuple[ActionValue, ...]) -> list[str]:
    """The answer in words."""
    label = f" ({document['label']})" if document["label"] else ""
    step = document["held_step"]
    held = "the given policy" if step is None else f"the policy of improvement step {step}"
    lines = [f"{document['site']}{label} holds {held}"]
    lines += [
        f"step {each['step'] + 1}: {'taken' if each['taken'] else 'not taken'}, {each['reason']}"
        for each in document["decisions"]
    ]
    if "at" not in document:
        return lines
    at = ", ".join(f"{name} = {number:.4g}" for name, number in document["at"].items())
    does = "draws any of its actions" if document["draws"] else f"takes action {_words(document['action'])}"
    lines += ["", f"at {at} it {does}"]
    if not found:
        return lines
    over = "the rule's action" if any(each.is_rule for each in found) else "the mean action"
    rows = [
        (
            _words(_plain(each.action)),
            f"{each.advantage:.4g}",
            "-" if math.isnan(each.low) else f"{each.low:.3g} to {each.high:.3g}",
            "taken" if each.chosen else "the rule's" if each.is_rule else "",
        )
        for each in found[:MOST_ROWS]
    ]
    columns = ("action", "advantage", f"{INTERVAL:.0%} interval", "")
    lines += [f"advantage over {over} in the long run, in units of the reward"]
    return [*lines, *table(columns, rows, numbers=(1,)), *and_more(len(found), MOST_ROWS)]


def _words(action: Any) -> str:
    if isinstance(action, list):
        return ", ".join(f"{each:.4g}" for each in action)
    return f"{action:.4g}" if isinstance(action, float) else str(action)
