"""Reports on the wire: what observers are told comes back, and what no report may say is refused."""

import dataclasses

import pytest
from codec_examples import BASIS, SPEC, STAMP, Change, refused, sent, set_to
from values import same

from cospan.wire import messages as m
from cospan.wire.codec.reports import decode_round_report, decode_run_report, encode_round_report, encode_run_report
from cospan.wire.errors import InvalidMessageError

AGENTS = (
    m.AgentReport(
        "a", m.AgentPhase.CONNECTED, 0.5, awaited=True, rounds_counted=3, reconnects=1, feed_silent_seconds=90.0
    ),
    m.AgentReport(
        "b",
        m.AgentPhase.LOST,
        1.5,
        awaited=False,
        rounds_counted=2,
        reconnects=0,
        td_error=0.25,
        head_bounded=True,
        policy_improved=True,
    ),
    m.AgentReport(
        "c", m.AgentPhase.GONE, 9.0, False, 0, 4, gone_in_round=0, gone_cause="silent for 5 s", outlier_rounds=7
    ),
)
RUN_REPORTS = {
    phase.value: m.RunReport(
        STAMP, SPEC, phase, 2.5, AGENTS, m.FinishCause.STOPPED if phase is m.RunPhase.FINISHED else None, 12.5
    )
    for phase in m.RunPhase
}
ROUND_REPORT = m.RoundReport(
    STAMP, 3, 0.25, 2, ("c", "d"), 0.125, 1e-16, BASIS, finished=True, outlier_agent_ids=("e",)
)


# There and back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUN_REPORTS)
def test_run_reports_come_back(name: str) -> None:
    assert same(decode_run_report(sent(encode_run_report(RUN_REPORTS[name]))), RUN_REPORTS[name])


def test_round_reports_come_back() -> None:
    whole = sent(encode_round_report(ROUND_REPORT, include_basis=True))
    assert same(decode_round_report(whole), ROUND_REPORT)
    without = dataclasses.replace(ROUND_REPORT, basis=None)
    assert same(decode_round_report(sent(encode_round_report(ROUND_REPORT, include_basis=False))), without)
    assert same(decode_round_report(sent(encode_round_report(without, include_basis=True))), without)


# What a coordinator may not say ---------------------------------------------------------------------------------


REPORT_CHANGES: dict[str, tuple[str, Change]] = {
    "no phase": ("phase is 0", set_to("phase", 0)),
    "unknown phase": ("phase is 42", set_to("phase", 42)),
    "unknown cause": ("finish_cause is 42", set_to("finish_cause", 42)),
    "no phase of an agent": ("agents.phase is 0", lambda r: setattr(r.agents[1], "phase", 0)),
    "no specification": ("method.head_update is 0", lambda r: r.ClearField("specification")),
    "long run id": ("stamp.run_id has 200", set_to("stamp.run_id", "x" * 200)),
}


@pytest.mark.parametrize("name", REPORT_CHANGES)
def test_a_malformed_run_report_is_refused(name: str) -> None:
    expected, change = REPORT_CHANGES[name]
    message = encode_run_report(RUN_REPORTS["collecting"])
    change(message)
    with pytest.raises(InvalidMessageError) as error:
        decode_run_report(sent(message))
    assert expected in refused(error)


def test_a_malformed_round_report_is_refused() -> None:
    message = encode_round_report(ROUND_REPORT, include_basis=True)
    message.basis.columns = 5
    with pytest.raises(InvalidMessageError, match=r"basis.data has 48 bytes; 3 × 5 of float64 are 120"):
        decode_round_report(message)
