"""A coordinator on this machine and the proxies that the environment names."""

import pytest
from runs import run, specification

from cospan.cli.processes.admin_client import fetch_run
from cospan.client.session.transport import GrpcTransport
from cospan.server.coordinator import Coordinator

NOWHERE = "http://127.0.0.1:9"


@pytest.mark.parametrize("variable", ["grpc_proxy", "https_proxy", "http_proxy"])
def test_a_coordinator_on_this_machine_is_reached_whatever_proxy_is_named(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, NOWHERE)

    async def reached() -> None:
        async with Coordinator(specification()) as coordinator:
            assert (await GrpcTransport(coordinator.address).describe()).workload == "tests"
            stream = await GrpcTransport(coordinator.address).open(specification())
            await stream.close()
            assert (await fetch_run(coordinator.address)).specification.workload == "tests"

    run(reached())
