"""Finds a workload by its name: a built-in one, or `package.module:attribute`."""

import contextlib
import importlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NoReturn

import numpy as np
from gymnasium.vector import VectorEnv
from jaxtyping import Float

from cospan.client.environment.import_path import add_working_folder, hidden_by
from cospan.client.environment.ownership import close_sites, user_code
from cospan.client.workload import AnySite, FeatureMap, Site, Sites, SourceSite, Workload
from cospan.client.workloads import BUILT_IN
from cospan.core.specification import RunSpecification
from cospan.wire.errors import InvalidValueError, WorkloadBehaviourError, WorkloadError


def load_workload(reference: Workload | str) -> Workload:
    """The workload that `reference` names; a workload is returned as it is.

    The working folder is searched after all others, and only for a workload that is not built in. An attribute that
    is a plain function (index, seed) → Site is made a workload of its own.

    Raises:
        WorkloadError: there is no such workload, module or attribute, or it is not a workload.
        WorkloadBehaviourError: the module raised when it was imported, or tried to end the process.
    """
    if isinstance(reference, Workload):
        return reference
    if reference.startswith(("logs:", "log:")):
        from cospan.client.logs.log_workload import workload_of_reference

        return workload_of_reference(reference)
    target = BUILT_IN.get(reference, reference)
    module_name, separator, attribute = target.partition(":")
    if not separator or not module_name or not attribute:
        raise WorkloadError(
            f"there is no workload {reference!r}; take one of {', '.join(BUILT_IN)}, "
            "or name your own as package.module:name"
        )
    if module_name.startswith("."):
        raise WorkloadError(
            f"workload {reference!r} cannot be imported; name its module in full, without dots before it"
        )
    working_folder = None if reference in BUILT_IN else add_working_folder()
    module = _import(module_name, reference)
    with user_code(f"workload {reference!r} cannot be looked up"):
        found = getattr(module, attribute, None)
    if found is None:
        hidden = None if working_folder is None else hidden_by(module_name, working_folder)
        if hidden is not None:
            raise WorkloadError(
                f"module {module_name!r} has no attribute {attribute!r}: a module of that name is installed and "
                f"comes before {hidden}; give that file another name"
            )
        raise WorkloadError(
            f"module {module_name!r} has no attribute {attribute!r}; name the workload that it defines"
        )
    if isinstance(found, Workload):
        return found
    if callable(found) and not isinstance(found, type):
        return Workload(make_site=found, name=reference)
    raise WorkloadError(
        f"{reference!r} is a {type(found).__name__}; it must be a cospan.client.workload.Workload, "
        "or a function (index, seed) → Site"
    )


def load_attribute(reference: str, what: str) -> object:
    """What `package.module:name` names; see `load_workload`.

    Args:
        reference: the name.
        what: it should be, for messages.

    Raises:
        WorkloadError: there is no such module or attribute.
        WorkloadBehaviourError: the module raised when it was imported.
    """
    module_name, separator, attribute = reference.partition(":")
    if not separator or not module_name or not attribute or module_name.startswith("."):
        raise WorkloadError(f"{what} {reference!r} is no name; write it as package.module:name")
    add_working_folder()
    found = getattr(_import(module_name, reference), attribute, None)
    if found is None:
        raise WorkloadError(f"module {module_name!r} has no attribute {attribute!r}; name what it defines")
    return found


def _import(module_name: str, reference: str) -> object:
    try:
        with exit_raises(f"module {module_name!r}"):
            return importlib.import_module(module_name)
    except ModuleNotFoundError as failure:
        missing = failure.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise WorkloadError(
                f"there is no module {missing!r} for workload {reference!r}; run from the folder that holds it, "
                "or install it"
            ) from failure
        raise WorkloadError(f"workload {reference!r} imports {missing!r}, which is not installed") from failure
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # it may also call sys.exit
        raise WorkloadBehaviourError(
            f"workload {reference!r} cannot be imported: {type(failure).__name__}: {failure}"
        ) from failure


def make_site(workload: Workload, index: int, seed: int) -> AnySite:
    """Site `index` of a workload.

    Raises:
        WorkloadError: there is no such site.
        WorkloadBehaviourError: the workload's own code raised, or gave something else.
    """
    _check_index(workload, index)
    refusal: ValueError | None = None
    with user_code(f"workload {workload.name!r} failed to make site {index}"):
        try:
            site = workload.make_site(index, seed)
        except ValueError as failure:
            refusal = failure
    if refusal is not None:
        raise WorkloadError(f"workload {workload.name!r} has no site {index}: {refusal}") from refusal
    if isinstance(site, SourceSite):
        return site
    if not isinstance(site, Site):
        raise WorkloadBehaviourError(
            f"workload {workload.name!r} made a {type(site).__name__} for site {index}; it must make a Site"
        )
    env: object = site.env
    if isinstance(env, VectorEnv):
        raise WorkloadBehaviourError(
            f"workload {workload.name!r} made a vector environment for site {index}; a site has one environment: "
            "give several sites at once with make_fleet and cospan.client.vector_sites"
        )
    return site if workload.exogenous is None else replace(site, exogenous=site.exogenous or workload.exogenous)


def make_sites(workload: Workload, indices: Sequence[int], seed: int) -> Sites | tuple[Site, ...]:
    """Several sites of a workload with environments, at once where it can step them so.

    Raises:
        InvalidValueError: they have no environments.
        WorkloadError: there is no such site.
        WorkloadBehaviourError: the workload's own code raised, or gave something else.
    """
    made = make_any_sites(workload, indices, seed)
    if isinstance(made, Sites):
        return made
    sites = tuple(site for site in made if isinstance(site, Site))
    if len(sites) < len(made):
        raise InvalidValueError(
            f"the sites of workload {workload.name!r} have no environments to step; name a workload that has some"
        )
    return sites


def make_any_sites(
    workload: Workload, indices: Sequence[int], seed: int
) -> Sites | tuple[Site, ...] | tuple[SourceSite, ...]:
    """Several sites of a workload, at once where it can step them so; all with environments, or all without.

    Raises:
        WorkloadError: there is no such site.
        WorkloadBehaviourError: the workload's own code raised, or gave something else.
    """
    if workload.make_fleet is None:
        return _one_by_one(workload, indices, seed)
    for index in indices:
        _check_index(workload, index)
    words = f"sites {indices[0]} to {indices[-1]}"
    with user_code(f"workload {workload.name!r} failed to make {words}"):
        sites = workload.make_fleet(indices, seed)
    if not isinstance(sites, Sites) or not len(sites.references) == len(sites.labels) == len(indices):
        raise WorkloadBehaviourError(
            f"workload {workload.name!r} made a {type(sites).__name__} for {words}; it must make Sites with a "
            f"reference and a label for each of {len(indices)}"
        )
    return sites if workload.exogenous is None else replace(sites, exogenous=sites.exogenous or workload.exogenous)


def _one_by_one(workload: Workload, indices: Sequence[int], seed: int) -> tuple[Site, ...] | tuple[SourceSite, ...]:
    """The sites, all of one kind; where one cannot be made, those before it are closed."""
    made: list[AnySite] = []
    try:
        for index in indices:
            made.append(make_site(workload, index, seed))
            check_shared_features(workload, made[:1], made[-1:], indices[0], index)
    except BaseException:
        close_sites(made)
        raise
    sites = tuple(site for site in made if isinstance(site, Site))
    if not sites:
        return tuple(site for site in made if isinstance(site, SourceSite))
    if len(sites) < len(made):
        close_sites(made)
        raise WorkloadBehaviourError(
            f"some sites of workload {workload.name!r} have environments and some have none; make all of one kind"
        )
    return sites


def features_of(sites: Sites | Sequence[AnySite]) -> FeatureMap:
    """Those that all of them share."""
    return sites.features if isinstance(sites, Sites) else sites[0].features


def check_shared_features(
    workload: Workload,
    first: Sites | Sequence[AnySite],
    other: Sites | Sequence[AnySite],
    first_index: int,
    index: int,
) -> None:
    """Raises WorkloadBehaviourError if two sites, each the first of some, differ in their feature map."""
    ours, theirs = features_of(first), features_of(other)
    if ours is not theirs and (ours.dim, ours.fingerprint) != (theirs.dim, theirs.fingerprint):
        raise WorkloadBehaviourError(
            f"the feature map of site {index} of workload {workload.name!r} is {theirs.fingerprint!r} with length "
            f"{theirs.dim}, and that of site {first_index} is {ours.fingerprint!r} with length {ours.dim}; "
            "all sites of a workload must have the same one"
        )


@contextlib.contextmanager
def exit_raises(what: str) -> Iterator[None]:
    """Lets `os._exit` raise, in this process and not in its forks: it would end a command without a word.

    Args:
        what: whose code runs, for the message.
    """
    here, leave = os.getpid(), os._exit

    def refuse(status: int) -> NoReturn:
        if os.getpid() != here:
            leave(status)
        raise SystemExit(f"{what} calls os._exit({status})")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = leave


def true_basis(workload: Workload, specification: RunSpecification) -> Float[np.ndarray, "d q"] | None:
    """B* of the fleet of a run, where the workload knows it; it is of the given policies, so not with improvement.

    Raises:
        WorkloadBehaviourError: the workload's own code raised, or gave something else.
    """
    if workload.fleet_basis is None or specification.improve:
        return None
    spec = specification
    with user_code(f"workload {spec.workload!r} failed to give the basis of its fleet"):
        basis = workload.fleet_basis(spec.agents, spec.rank, spec.seed)
    if basis is not None and (basis.ndim != 2 or basis.shape[0] != spec.feature_dim):
        raise WorkloadBehaviourError(
            f"workload {spec.workload!r} gave a basis of its fleet of shape {basis.shape}; "
            f"it must have {spec.feature_dim} rows"
        )
    return basis


def _check_index(workload: Workload, index: int) -> None:
    if index < 0 or (workload.max_agents is not None and index >= workload.max_agents):
        most = "" if workload.max_agents is None else f" to {workload.max_agents - 1}"
        raise WorkloadError(f"workload {workload.name!r} has no site {index}; take 0{most or ' or more'}")
