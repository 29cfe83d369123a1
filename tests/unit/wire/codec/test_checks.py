"""Enumerations on the wire."""

from cospan.core.method import Aggregation, HeadUpdate
from cospan.core.run_fields import Participation
from cospan.rpc.v1 import run_pb2
from cospan.wire.codec import messages as codec
from cospan.wire.codec.checks import numbers_of


def test_every_enum_value_has_its_number() -> None:
    """Both ways, each once, and none the unspecified zero."""
    for table in (
        numbers_of(HeadUpdate, run_pb2.HeadUpdate.DESCRIPTOR),
        numbers_of(Aggregation, run_pb2.AggregationPolicy.DESCRIPTOR),
        numbers_of(Participation, run_pb2.ParticipationPolicy.DESCRIPTOR),
        codec._DISPOSITION,
        codec.FINISH_CAUSE,
        codec.RUN_PHASE,
        codec.AGENT_PHASE,
    ):
        (kind,) = {type(value) for value in table}
        assert set(table) == set(kind)
        assert len(set(table.values())) == len(table)
        assert 0 not in table.values()
