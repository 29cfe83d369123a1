"""Checks of `cospan doctor` on this machine: versions, BLAS threads, SQLite, ports, the disk."""

import contextlib
import importlib.metadata
import os
import shutil
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cospan.cli.diagnostics.findings import Finding, bad, good, note
from cospan.server.net.binding import free, resolved
from cospan.wire.address import Address
from cospan.wire.codec.fast_path import ENABLED, PIECES
from cospan.wire.errors import InvalidValueError
from cospan.wire.text import split_remedy

_LEAST_PYTHON = (3, 11)
_LEAST = {"numpy": (1, 26), "grpcio": (1, 74), "protobuf": (6, 31, 1), "gymnasium": (1, 0)}
"""As pyproject.toml asks for them."""
_EXTRAS = {
    "cryptography": "tls",
    "matplotlib": "plot",
    "mlflow-skinny": "mlflow",
    "opentelemetry-sdk": "otel",
    "prometheus-client": "metrics",
    "scipy": "study",
    "tensorboard": "tensorboard",
    "uvicorn": "dashboard",
}
_LEAST_SQLITE = (3, 24)
_LEAST_FREE = 256 * 2**20
_CONNECT_SECONDS = 2.0


def of_python() -> list[Finding]:
    """The version of Python."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < _LEAST_PYTHON:
        return [bad("Python", version, "use Python 3.11 or later: make PYTHON=python3.12 .venv/ready")]
    return [good("Python", f"{version} at {sys.executable}")]


def of_versions() -> list[Finding]:
    """Versions of Cospan and its dependencies; missing extras are no problem."""
    found = [good("cospan", importlib.metadata.version("cospan"))]
    if ENABLED != PIECES:
        pieces = ", ".join(sorted(ENABLED)) or "off"
        found.append(note("fast path", f"COSPAN_FAST_PATH: {pieces}", "unset it, unless you look for a fault"))
    for name, least in _LEAST.items():
        wanted = ".".join(map(str, least))
        version = _version(name)
        if version is None:
            found.append(bad(name, "is not installed", f"pip install '{name}>={wanted}'"))
        elif _numbers(version) < least:
            found.append(bad(name, f"{version}, older than {wanted}", f"pip install --upgrade '{name}>={wanted}'"))
        else:
            found.append(good(name, version))
    missing = sorted(extra for name, extra in _EXTRAS.items() if _version(name) is None)
    there = sorted(set(_EXTRAS.values()) - set(missing))
    if missing:
        remedy = f"where you want them: pip install '.[{','.join(missing)}]'"
        return [*found, note("extras", f"not installed: {', '.join(missing)}", remedy)]
    return [*found, good("extras", ", ".join(there))]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with."""
    found: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return tuple(found)


def of_blas() -> list[Finding]:
    """Threads of numpy's BLAS."""
    import numpy as np
    from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

    np.eye(2) @ np.eye(2)
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    if not libraries:
        return [note("BLAS", "numpy has one that cannot be asked", "set OPENBLAS_NUM_THREADS=1 to be sure")]
    most = max(library["num_threads"] for library in libraries)
    named = ", ".join(sorted({f"{library['internal_api']} {library['version']}" for library in libraries}))
    if most > 1:
        remedy = "set OPENBLAS_NUM_THREADS=1 (and OMP_, MKL_): agents on one machine fight over the cores otherwise"
        return [note("BLAS", f"{named} with {most} threads", remedy)]
    return [good("BLAS", f"{named} with one thread; {os.cpu_count()} cores")]


def of_sqlite() -> list[Finding]:
    """The version of SQLite."""
    if sqlite3.sqlite_version_info[:2] < _LEAST_SQLITE:
        return [bad("SQLite", sqlite3.sqlite_version, "use a Python with SQLite 3.24 or later")]
    return [good("SQLite", sqlite3.sqlite_version)]


def of_folder(folder: Path) -> list[Finding]:
    """Whether a folder of runs is writable, and its free space; the folder is not made."""
    there = next((each for each in (folder, *folder.absolute().parents) if each.exists()), Path("/"))
    if not there.is_dir():
        return [bad("runs", f"{there} is a file", "name another folder with --run-folder")]
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as failure:
        remedy = "name a folder that may be written to, or change its rights or owner"
        return [bad("runs", f"{there} cannot be written to: {failure.strerror}", remedy)]
    free = shutil.disk_usage(there).free
    if free < _LEAST_FREE:
        remedy = "make room, or name a folder on another disk: the run stops when the disk is full"
        return [bad("runs", f"{free / 2**20:.0f} MiB are free at {there}", remedy)]
    return [good("runs", f"{folder} can be written to; {free / 2**30:.1f} GiB free")]


def of_port(address: Address, option: str) -> Sequence[Finding]:
    """Whether a coordinator could listen here, and if not, why."""
    if address.port == 0 and not address.is_unix:
        return [good("port", "any that is free")]
    subject = "socket" if address.is_unix else f"port {address.port}"
    try:
        free(resolved(address, option), option)
    except InvalidValueError as failure:
        why, remedy = split_remedy(str(failure).removeprefix("cannot listen on "))
        if _answers(address):
            remedy = (
                f"`cospan status --coordinator {address}` says whether it is a coordinator; else choose another: "
                f"{option}"
            )
            return [note(subject, f"{why}: another process listens", remedy)]
        return [bad(subject, why, remedy)]
    return [good(subject, f"{address} is free")]


def _answers(address: Address) -> bool:
    if address.is_unix:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_CONNECT_SECONDS)
            return probe.connect_ex(address.host) == 0
        return False
    with contextlib.suppress(OSError), socket.create_connection((address.host, address.port), _CONNECT_SECONDS):
        return True
    return False
