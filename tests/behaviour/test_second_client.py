"""Two clients that know nothing but the `.proto`, and numpy, which knows what the coordinator must answer them."""

import ast
import asyncio
from pathlib import Path

import numpy as np
import pytest
from behaviour import second_client
from behaviour.second_client import SecondClient, to_array
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from runs import run, specification

from cospan.core.method import paper
from cospan.rpc.v1.coordinator_service_pb2 import (
    FINISH_CAUSE_ROUNDS_REACHED,
    GRADIENT_DISPOSITION_DUPLICATE,
    CollaborateResponse,
    Welcome,
)
from cospan.server.coordinator import Coordinator

DIM, RANK, ROUNDS = 9, 3, 7
STEP = paper(4).basis_step


def next_basis(basis: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    """Mean, tangent projection, step and QR with diag(R) > 0: eq. 8 and Algorithm 1, in numpy and nothing else."""
    mean = np.sum(gradients, axis=0) / len(gradients)
    q, r = np.linalg.qr(basis + STEP * (mean - basis @ (basis.T @ mean)))
    return q * np.sign(np.diag(r))


def test_the_second_client_knows_the_protocol_alone() -> None:
    tree = ast.parse(Path(second_client.__file__).read_text(encoding="utf-8"))
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    ours = {name for name in imported if name.startswith("cospan")}
    assert ours == {"cospan.rpc.v1.coordinator_service_pb2", "cospan.rpc.v1.matrix_pb2"}
    assert imported - ours == {
        "numpy",
        "types",
        "typing",
        "contextlib",
        "grpclib.client",
        "grpclib.exceptions",
        "h2.exceptions",
    }


def test_a_run_of_two_clients_of_another_making() -> None:
    """One sends its gradients dense and one factored; the bases that come back are those that numpy computes."""
    rng = np.random.default_rng(5)
    # Gradients of different sizes and of rank one to three, so that no part of the formula drops out.
    factors = [
        [
            (3.0**scale * rng.standard_normal((DIM, m)), rng.standard_normal((RANK, m)))
            for scale, m in ((0, 1), (1, m2))
        ]
        for m2 in (1, 2, 3, 1, 2, 3, 1)
    ]

    async def collaborate() -> None:
        spec = specification(paper(4), feature_dim=DIM, rank=RANK, rounds=ROUNDS)
        async with (
            Coordinator(spec) as coordinator,
            SecondClient(coordinator.address, "a", DIM, "dense") as a,
            SecondClient(coordinator.address, "b", DIM, "factored") as b,
        ):
            first = await a.join()
            assert (first.started, first.first_round) == (False, 0)
            assert first.specification.feature_fingerprint == "written by hand"
            basis = to_array(first.basis)
            np.testing.assert_allclose(basis.T @ basis, np.eye(RANK), atol=1e-12)
            assert to_array((await b.join()).basis).tobytes() == basis.tobytes()
            for client in (a, b):
                opened = await client.receive()
                assert (opened.WhichOneof("event"), opened.stamp.round) == ("basis_update", 0)
            for number in range(ROUNDS):
                (u, v), (x, y) = factors[number]
                await a.send(number, u, v)
                if number == 2:
                    await send_twice(a, number, u, v)
                if number == 4:
                    again = await a.join()
                    assert (again.session_token, again.started, a.round) == (first.session_token, True, number)
                    assert to_array(again.basis).tobytes() == basis.tobytes()
                    await send_again(a, again, u, v)
                await b.send(number, x, y)
                expected = next_basis(basis, [u @ v.T, x @ y.T])
                answers = [await a.receive(), await b.receive()]
                last = number == ROUNDS - 1
                for answer in answers:
                    assert (answer.stamp.round, answer.stamp.run_id) == (number + 1, a.run_id)
                    basis = to_array((answer.finish if last else answer.basis_update).basis)
                    np.testing.assert_allclose(basis, expected, rtol=0.0, atol=1e-12)
                    assert np.abs(basis - to_array(first.basis)).max() > 1e-3, "it has moved"
            assert all(answer.finish.cause == FINISH_CAUSE_ROUNDS_REACHED for answer in answers)
            assert dict(coordinator.engine.state.history.rounds_counted) == {"a": ROUNDS, "b": ROUNDS}

    run(collaborate())


def is_duplicate(response: CollaborateResponse, number: int) -> bool:
    receipt = response.receipt
    return (receipt.gradient_round, receipt.disposition) == (number, GRADIENT_DISPOSITION_DUPLICATE)


async def send_twice(client: SecondClient, number: int, left: np.ndarray, right: np.ndarray) -> None:
    """The same gradient, and then another one for the same round: neither counts."""
    for times in (1.0, 100.0):
        await client.send(number, times * left, right)
        assert is_duplicate(await client.receive(), number)


async def send_again(client: SecondClient, welcome: Welcome, left: np.ndarray, right: np.ndarray) -> None:
    """The stream broke when the gradient had been received, or had not: sent again, it counts once."""
    await client.send(client.round, left, right)
    if welcome.first_round > client.round:
        assert is_duplicate(await client.receive(), client.round)


def test_a_refusal_reads_well_in_another_client() -> None:
    async def refused() -> None:
        async with (
            Coordinator(specification(feature_dim=DIM, rank=RANK)) as coordinator,
            SecondClient(coordinator.address, "a", DIM + 1, "dense") as client,
        ):
            with pytest.raises(GRPCError) as caught:
                await client.join()
            assert caught.value.status is Status.FAILED_PRECONDITION
            assert caught.value.message is not None
            assert "dimension 10, those of the run 9" in caught.value.message
            (info,) = caught.value.details
            assert (info.reason, info.domain) == ("FEATURE_MISMATCH", "cospan")

    run(refused())


def test_a_client_that_vanishes_is_given_up() -> None:
    async def vanished() -> None:
        spec = specification(feature_dim=DIM, rank=RANK, session_timeout_seconds=4.0, round_timeout_seconds=4.0)
        async with Coordinator(spec) as coordinator:
            async with (
                SecondClient(coordinator.address, "a", DIM, "dense") as a,
                SecondClient(coordinator.address, "b", DIM, "dense") as b,
            ):
                await asyncio.gather(a.join(), b.join())
            end = await coordinator.wait()
            assert end.message == "every agent is gone, and none came back within 4 s"

    run(vanished())
