"""What `cospan.client` and its like promise by name: it is there, and costs nothing before it is asked for."""

import importlib
import subprocess
import sys

import pytest

PACKAGES = ("cospan.client", "cospan.simulation", "cospan.server")


@pytest.mark.parametrize("name", PACKAGES)
def test_every_name_is_there(name: str) -> None:
    package = importlib.import_module(name)
    assert sorted(package._HOMES) == sorted(package.__all__)
    assert set(package.__all__) <= set(dir(package))
    for public in package.__all__:
        found = getattr(package, public)
        assert found.__module__ == package._HOMES[public], "it is named where it is defined"
        assert str(found.__doc__).strip()
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'Agnet'"):
        package.Agnet  # noqa: B018


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    program = f"import sys, {', '.join(PACKAGES)}; print(*(name for name in sys.modules))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(said.stdout.split())
    assert not loaded & {"grpc", "numpy", "gymnasium", "asyncio", "cospan.core.method"}
