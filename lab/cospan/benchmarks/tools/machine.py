"""Describes the machine that a benchmark ran on."""

import importlib.metadata
import platform
from pathlib import Path

from cospan.experiments.runner import cores


def describe() -> dict[str, str | int]:
    """CPU, number of cores that may be used, and the versions of what the figures depend on."""
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": importlib.metadata.version("numpy"),
        "blas": _blas(),
        "grpcio": importlib.metadata.version("grpcio"),
        "cospan": importlib.metadata.version("cospan"),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    found: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    if "model name" not in found:
        return platform.processor() or "unknown"
    # Some clouds give the bare name of the family: the numbers tell which one.
    return f"{found['model name']} (family {found.get('cpu family', '?')}, model {found.get('model', '?')})"


def _blas() -> str:
    """Library, version, the kernels that it has chosen, and its threads."""
    import numpy as np  # noqa: F401  (loads the library)
    from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

    libraries = [each for each in threadpool_info() if each.get("user_api") == "blas"]
    described = (
        f"{each['internal_api']} {each['version']}, {each.get('architecture', 'unknown')} kernels, "
        f"{each['num_threads']} thread{'' if each['num_threads'] == 1 else 's'}"
        for each in libraries
    )
    return "; ".join(dict.fromkeys(described)) or "unknown"
