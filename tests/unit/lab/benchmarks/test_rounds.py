"""The benchmarks at tiny size: that they measure what they say, and what their tables and documents hold."""

import json

import numpy as np
import pytest
from scipy import stats

from cospan.benchmarks import encodings, learner, orthonormalise, rounds
from cospan.benchmarks.agent_start import learnt
from cospan.benchmarks.cost_growth import Cost, per_stream
from cospan.benchmarks.tools import processes
from cospan.benchmarks.tools.growth import exponent, shares
from cospan.benchmarks.tools.load_generator import Upload, agents_of
from cospan.benchmarks.tools.machine import describe
from cospan.benchmarks.tools.paired_timing import Turns, in_turns
from cospan.benchmarks.tools.processes import Case
from cospan.benchmarks.tools.report import Column, Report
from cospan.cli.lab.bench import shapes_of
from cospan.core.aggregation.basis_update import Contribution
from cospan.core.learning.learner import LearnerState, Trajectory, learn_round
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix, to_dense
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import HeadUpdate, Method, paper
from cospan.core.specification import RunSpecification
from cospan.experiments.estimates import median_estimate
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.wire.codec.basis_bytes import varint
from cospan.wire.codec.messages import decode_agent_message, encode_agent_message
from cospan.wire.errors import CospanError, InvalidValueError
from cospan.wire.messages import GradientUpload


def quiet(_text: str) -> None:
    """In place of a progress line."""


def checked(report: Report) -> dict[str, object]:
    """The document of a report, which must be JSON; every column of the table is in every row."""
    document = report.document(describe())
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    keys = {column.key for column in report.columns}
    for row, cells in zip(report.rows, report.cells(), strict=True):
        assert keys <= row.keys() == report.rows[0].keys()
        assert len(cells) == len(report.columns)
    return document


# Turns and reports ----------------------------------------------------------------------------------------------


def test_ways_take_turns_forwards_and_backwards() -> None:
    order: list[str] = []
    turns = in_turns([lambda: order.append("a"), lambda: order.append("b")], rounds=4)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab" + "ba", "one turn that does not count, then four"
    assert turns.seconds.shape == (4, 2)


def test_ratios_are_taken_round_by_round() -> None:
    """The machine is ten times slower in two rounds: that is no news about the ratio."""
    turns = Turns(np.array([[1.0, 2.0], [10.0, 20.0], [1.0, 2.2], [10.0, 20.0]]))
    ratio = turns.ratio(1, 0)
    assert ratio.value == 2.0
    assert (ratio.low, ratio.high) == (2.0, pytest.approx(2.2, abs=0.11))
    assert turns.median(0) == 5.5


def test_a_median_has_an_interval_that_holds_it_and_is_the_same_every_time() -> None:
    values = np.random.default_rng(1).standard_normal(101)
    found = median_estimate(values)
    assert found == median_estimate(values)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value == np.median(values) < found.high
    assert median_estimate(values[:1]).low is None


def test_a_single_case_stands_at_the_top_of_its_document() -> None:
    columns = (Column("name", "name"), Column("size", "size", ".2f"))
    one = Report("x", ("note",), columns, ({"name": "a", "size": 1.234, "more": None},))
    assert one.document({"cpu": "c"})["size"] == 1.234
    assert one.cells() == [["a", "1.23"]]
    two = Report("x", (), columns, one.rows * 2).document({})
    assert "size" not in two
    assert two["cases"] == [dict(row) for row in one.rows] * 2


def test_the_machine_is_described() -> None:
    machine = describe()
    assert {"cpu", "cores", "python", "numpy", "blas", "grpcio"} <= machine.keys()
    assert all(machine.values())


# The benchmarks -------------------------------------------------------------------------------------------------


def test_orthonormalise() -> None:
    report = orthonormalise.benchmark([(2048, 8), (20, 3)], 0.0, quiet)
    checked(report)
    assert [(row["feature_dim"], row["rank"], row["condition"]) for row in report.rows] == [
        *((2048, 8, 1.5), (2048, 8, 1e7)),
        *((20, 3, 1.5), (20, 3, 1e7)),
    ]
    for row in report.rows:
        assert isinstance(row["error"], float)
        assert row["error"] < 1e-14
    assert np.linalg.cond(orthonormalise.conditioned(300, 5, 1e7)) == pytest.approx(1e7, rel=1e-6)


def test_encodings() -> None:
    report = encodings.benchmark([(20, 3)], [1, 10], 0.0, quiet)
    checked(report)
    sizes = {(row["agents"], row["encoding"], row["dtype"]): row["bytes"] for row in report.rows}
    assert len(sizes) == 8
    payload = {"dense": 20 * 3 * 8, "factored": (20 + 3) * 8}
    for encoding, numbers in payload.items():
        size = sizes[1, encoding, "float64"]
        assert isinstance(size, int)
        assert numbers < size <= numbers + 64, "an upload costs little beyond its numbers"
        assert sizes[1, encoding, "float32"] == pytest.approx(numbers / 2, abs=64)
    assert sizes[10, "factored", "float64"] > 3 * payload["factored"], "a group has as many factors as columns"


@pytest.mark.parametrize(("d", "r"), [(1, 1), (20, 3), (1024, 16), (65_536, 32)])
def test_a_factored_upload_is_its_numbers_and_at_most_64_bytes(d: int, r: int) -> None:
    """Of one agent, in float64, with the largest number of a round that a billion rounds need."""
    gradient = FactoredMatrix(np.ones((d, 1)), np.ones((r, 1)))
    message = encode_agent_message(GradientUpload(1_000_000_000, Contribution(gradient, 1.0)))
    size = len(message.SerializeToString())
    assert 8 * (d + r) < size <= 8 * (d + r) + 64


def test_learner() -> None:
    chosen = [learner.Case("queues", "practical", 3), learner.Case("none", "compact", 2, (12, 2))]
    report = learner.benchmark(chosen, 0.0, quiet)
    checked(report)
    assert [row["feature_dim"] for row in report.rows] == [43, 12]
    assert [row["agent_per_second"] is None for row in report.rows] == [False, True]
    assert len(learner.cases()) == 2 * 3 * 3 + 3 * 3


def test_the_plain_yardstick_does_what_the_learner_does() -> None:
    """With corrections at every step, no ball, no decay: the same head, gain and gradient."""
    rng = np.random.default_rng(2)
    basis = random_basis(12, 3, rng)
    trajectory = Trajectory(rng.standard_normal((31, 12)) / 7.0, rng.standard_normal(30))
    method = Method(30, HeadUpdate.EVERY_STEP, head_step=0.1, gain_step=0.01, head_radius=1e9, basis_step=0.1)
    expected = learn_round(LearnerState.initial(3), basis, trajectory, method)
    head, gain, gradient = learner.plain_td(basis, trajectory)
    np.testing.assert_allclose(head, expected.state.head, rtol=1e-12)
    np.testing.assert_allclose(gain, expected.state.gain_estimate, rtol=1e-12)
    np.testing.assert_allclose(gradient, to_dense(expected.gradient), atol=1e-13)


# Growth ---------------------------------------------------------------------------------------------------------


def test_the_exponent_of_a_power_law() -> None:
    x = np.array([1.0, 10.0, 100.0, 1000.0])
    exact = exponent(x, 3.0 * x**1.5)
    assert exact.value == pytest.approx(1.5)
    assert (exact.low, exact.high) == (pytest.approx(1.5), pytest.approx(1.5))


def test_the_interval_of_an_exponent_is_that_of_student() -> None:
    """Against scipy's regression, whose standard error is the same by another way."""
    x = np.array([1.0, 2.0, 5.0, 9.0, 30.0])
    y = x * np.array([1.0, 1.3, 0.9, 1.2, 0.8])
    expected = stats.linregress(np.log(x), np.log(y))
    margin = stats.t.ppf(0.975, 3) * expected.stderr
    found = exponent(x, y)
    assert found.value == pytest.approx(expected.slope)
    assert found.high == pytest.approx(expected.slope + margin, rel=1e-3)
    assert found.low == pytest.approx(expected.slope - margin, rel=1e-3)


def test_what_a_sum_of_costs_consists_of() -> None:
    terms = np.array([[1.0, 8.0, 2.0], [1.0, 32.0, 7.0], [1.0, 128.0, 1.0], [1.0, 512.0, 5.0], [1.0, 9.0, 30.0]])
    np.testing.assert_allclose(shares(terms, terms @ [50.0, 3.0, 0.5]), [50.0, 3.0, 0.5], rtol=1e-9)
    found = shares(terms, terms @ [50.0, 3.0, -0.5])
    assert found[2] == 0.0, "nothing costs less than nothing"
    assert found[0] > 0.0
    assert found[1] == pytest.approx(3.0, rel=0.1)


def test_what_a_stream_costs_beyond_the_first_case() -> None:
    """8 streams cost 4,000 µs, 108 cost 27,000 µs and 80 KiB more for each of the 100, 2 KiB of it payload."""
    few, many = Case(8, 64, 4), Case(108, 64, 4)
    least, most = Cost(4000.0, 1.0, 40.0, 9), Cost(27_000.0, 1.0, 40.0 + 8000 / 1024, 9)
    found = per_stream(many, most, few, least)
    assert (found["cpu_us_per_stream"], found["cpu_growth_per_stream"]) == (250.0, 0.5)
    assert found["memory_kib_per_stream"] == pytest.approx(78.0)
    first = per_stream(few, least, few, least)
    assert (first["cpu_growth_per_stream"], first["memory_kib_per_stream"]) == (1.0, None)
    assert set(per_stream(many, Cost(None, 1.0, None, 9), few, least).values()) == {None}


def test_a_group_shares_a_stream() -> None:
    case = Case(10, 4, 2, group=4)
    assert case.streams == 3
    assert [list(agents_of(stream, 4, 10)) for stream in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


# Rounds: the agents that only speak -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 16_383, 16_384, 2**40])
def test_an_upload_is_what_an_agent_would_send(number: int) -> None:
    spec = RunSpecification("", 5, 2, agents=1, rounds=0, seed=0, method=paper(1))
    request = pb.CollaborateRequest.FromString(Upload(5, 2, 7).of_round(number))
    message = decode_agent_message(request, spec)
    assert isinstance(message, GradientUpload)
    assert (message.round, message.contribution.weight) == (number, 1.0)
    gradient = message.contribution.gradient
    assert isinstance(gradient, DenseMatrix)
    assert gradient.values.tobytes() == Upload(5, 2, 7).of_round(0)[-80:], "the ceiling reads it off the end"


def test_varints_by_hand() -> None:
    assert [varint(0), varint(127), varint(300)] == [b"\x00", b"\x7f", b"\xac\x02"]


@pytest.mark.parametrize("agents", [1, 2, 8, 9, 32, 1024])
def test_every_agent_is_in_one_process(agents: int) -> None:
    shares = processes.shares(Case(agents, 4, 2))
    assert sorted(number for share in shares for number in share) == list(range(1, agents))
    assert len(shares) == agents - 1 if agents <= 8 else 1 <= len(shares) <= agents


def test_the_sweep_leaves_out_what_no_memory_holds() -> None:
    cases = rounds.sweep()
    assert Case(1024, 1024, 16) in cases
    assert Case(1024, 65_536, 32) not in cases
    assert {(case.feature_dim, case.rank) for case in cases} == set(rounds.SWEEP_SHAPES)


def test_an_agent_that_fails_to_start_says_why() -> None:
    assert [learnt(json.dumps({"event": name})) for name in ("note", "progress")] == ["", "progress"]
    with pytest.raises(CospanError, match="the agent did not start: no room"):
        learnt(json.dumps({"event": "failed", "message": "no room"}))


# Wrong use ------------------------------------------------------------------------------------------------------


def test_shapes() -> None:
    assert shapes_of(["65536x32", "4x4"]) == ((65_536, 32), (4, 4))


@pytest.mark.parametrize("text", ["", "x", "3", "3x", "3x4", "0x0", "4x-1", "4×2", "4x2x1", "٤x٢"])
def test_what_is_no_shape(text: str) -> None:
    with pytest.raises(InvalidValueError, match="--shape"):
        shapes_of([text])
