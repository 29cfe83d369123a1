"""Finds what a site of a run has learnt, and the site itself, which shows where it goes."""

from dataclasses import dataclass

from cospan.cli.run_folder.layout import RunFolder
from cospan.client.decisions.improver import features_joined_with
from cospan.client.environment.ownership import closing_on_failure
from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.client.files.group_file import member_of
from cospan.client.value_function import ValueFunction
from cospan.client.workload import Site, Workload
from cospan.client.workloads import BUILT_IN
from cospan.core.specification import RunSpecification
from cospan.wire.errors import InvalidValueError, RunFileError
from cospan.wire.text import listed


def workload_of(named: str | None, spec: RunSpecification) -> Workload:
    """The workload of a run; one that is not built in has to be named: no file may name code to be run.

    Args:
        named: on the command line.
        spec: of the run.

    Raises:
        InvalidValueError: it has to be named.
        WorkloadError: there is no such workload.
    """
    if named is None and spec.workload not in BUILT_IN:
        raise InvalidValueError(
            f"this run is of workload {spec.workload!r}, which does not come with Cospan; add "
            f"--workload {spec.workload} to have it imported"
        )
    return load_workload(named or spec.workload)


@dataclass(frozen=True, eq=False, slots=True)
class LearntSite:
    """A site with what its agent has learnt; `site` has to be closed.

    Attributes:
        index: of the site.
        site: as the workload makes it.
        value: its value function.
    """

    index: int
    site: Site
    value: ValueFunction


def index_of(word: str) -> tuple[int, str]:
    """The index of a site and its agent's name, from either.

    Raises:
        InvalidValueError: it is neither.
    """
    name = f"site-{int(word)}" if word.isdigit() else word
    digits = name.rpartition("-")[2]
    if not digits.isdigit():
        raise InvalidValueError(
            f"--site is {word!r}; it must be an index, as 7, or the name of an agent, as site-7"
        )
    return int(digits), name


def learnt_site(folder: RunFolder, word: str, workload: Workload, spec: RunSpecification) -> LearntSite:
    """A site of a run by its index or its agent's name.

    Raises:
        InvalidValueError: it is neither, or the site has no environment.
        RunFileError: the run has no such agent.
    """
    index, name = index_of(word)
    check_there(folder, name)
    site = make_site(workload, index, spec.seed)
    if not isinstance(site, Site):
        raise InvalidValueError(
            f"site {index} has no environment that shows where it goes; ask its value function in Python instead "
            "(ValueFunction.load)"
        )
    with closing_on_failure(site):
        return LearntSite(index, site, _value_of(folder, (index, name), site, spec))


def check_there(folder: RunFolder, name: str) -> None:
    """Raises RunFileError before the workload's code runs where the run has no agent of this name."""
    known = sorted(each.stem for each in folder.agents.glob("site-*.npz"))
    if name not in known and not any(folder.agents.glob("group-*.npz")):
        there = f"; it has {listed(known)}" if known else ""
        raise RunFileError(f"{folder.path} has no agent {name!r}{there}")


def _value_of(folder: RunFolder, whose: tuple[int, str], site: Site, spec: RunSpecification) -> ValueFunction:
    """What an agent has learnt, from its file or that of its group."""
    index, name = whose
    path, features = folder.agent(name), features_joined_with(site, spec, index)
    if features is not site.features:
        raise InvalidValueError(
            f"the values of {name} are of pairs (observation, action), for its run has improvement steps; ask its "
            f"policy: cospan policy {folder.path} --site {index}"
        )
    if path.exists():
        return ValueFunction.load(path, features)
    for group in sorted(folder.agents.glob("group-*.npz")):
        found = member_of(group, name)
        if found is not None:
            return ValueFunction.of_result(found, group, features, seed=spec.seed)
    raise RunFileError(f"{folder.path} has no agent {name!r}")
