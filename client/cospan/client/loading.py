"""Finds a workload by its name: a built-in one, or `package.module:attribute`."""

import importlib
from collections.abc import Sequence

import numpy as np
from gymnasium.vector import VectorEnv
from jaxtyping import Float

from cospan.client.import_path import add_working_folder, hidden_by
from cospan.client.workload import Site, Sites, Workload
from cospan.client.workloads import BUILT_IN
from cospan.core.specification import RunSpecification
from cospan.wire.errors import WorkloadBehaviourError, WorkloadError


def load_workload(reference: str) -> Workload:
    """The workload that `reference` names.

    The working folder is searched after all others, and only for a workload that is not built in. An attribute that
    is a plain function (index, seed) → Site is made a workload of its own.

    Raises:
        WorkloadError: there is no such workload, module or attribute, or it is not a workload.
    """
    target = BUILT_IN.get(reference, reference)
    module_name, separator, attribute = target.partition(":")
    if not separator or not module_name or not attribute:
        raise WorkloadError(
            f"there is no workload {reference!r}; take one of {', '.join(BUILT_IN)}, "
            "or name your own as package.module:name"
        )
    working_folder = None if reference in BUILT_IN else add_working_folder()
    found = getattr(_import(module_name, reference), attribute, None)
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


def _import(module_name: str, reference: str) -> object:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as failure:
        missing = failure.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise WorkloadError(
                f"there is no module {missing!r} for workload {reference!r}; run from the folder that holds it, "
                "or install it"
            ) from failure
        raise WorkloadError(f"workload {reference!r} imports {missing!r}, which is not installed") from failure
    except Exception as failure:
        raise WorkloadError(
            f"workload {reference!r} cannot be imported: {type(failure).__name__}: {failure}"
        ) from failure


def make_site(workload: Workload, index: int, seed: int) -> Site:
    """Site `index` of a workload.

    Raises:
        WorkloadError: there is no such site.
        WorkloadBehaviourError: the workload's own code raised, or gave something else.
    """
    _check_index(workload, index)
    try:
        site = workload.make_site(index, seed)
    except ValueError as failure:
        raise WorkloadError(f"workload {workload.name!r} has no site {index}: {failure}") from failure
    except Exception as failure:
        raise WorkloadBehaviourError(
            f"workload {workload.name!r} failed to make site {index}: {type(failure).__name__}: {failure}"
        ) from failure
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
    return site


def make_sites(workload: Workload, indices: Sequence[int], seed: int) -> Sites | tuple[Site, ...]:
    """Several sites of a workload, at once where it can step them so.

    Raises:
        WorkloadError: there is no such site.
        WorkloadBehaviourError: the workload's own code raised, or gave something else.
    """
    if workload.make_fleet is None:
        return tuple(make_site(workload, index, seed) for index in indices)
    for index in indices:
        _check_index(workload, index)
    words = f"sites {indices[0]} to {indices[-1]}"
    try:
        sites = workload.make_fleet(indices, seed)
    except Exception as failure:
        raise WorkloadBehaviourError(
            f"workload {workload.name!r} failed to make {words}: {type(failure).__name__}: {failure}"
        ) from failure
    if not isinstance(sites, Sites) or not len(sites.references) == len(sites.labels) == len(indices):
        raise WorkloadBehaviourError(
            f"workload {workload.name!r} made a {type(sites).__name__} for {words}; it must make Sites with a "
            f"reference and a label for each of {len(indices)}"
        )
    return sites


def true_basis(workload: Workload, specification: RunSpecification) -> Float[np.ndarray, "d q"] | None:
    """B* of the fleet of a run, where the workload knows it.

    Raises:
        WorkloadBehaviourError: the workload's own code raised, or gave something else.
    """
    if workload.fleet_basis is None:
        return None
    spec = specification
    try:
        basis = workload.fleet_basis(spec.agents, spec.rank, spec.seed)
    except Exception as failure:
        raise WorkloadBehaviourError(
            f"workload {spec.workload!r} failed to give the basis of its fleet: {type(failure).__name__}: {failure}"
        ) from failure
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
