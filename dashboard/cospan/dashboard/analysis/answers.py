"""Answers to an operator's questions: is it learning, who is unusual, worse than alone or slow, and what next."""

import statistics
from collections.abc import Iterator

from cospan.core.statistics import median
from cospan.dashboard.analysis.facts import BAD, CALM, GOOD, WARN, Answer, Facts, digits, duration
from cospan.dashboard.analysis.trend import SLOWLY, STILL, Trend
from cospan.wire.messages import AgentPhase
from cospan.wire.text import listed

_NAMED = 5
_FEWEST = 4
"""Fewest agents among which one can be unusual."""
_OWN_WEIGHT, _USUAL_WEIGHT = 0.1, 0.5
"""A shared weight below the first is unusual where the median is above the second, as in the run's warnings."""
_FAR = 5.0
"""Times the median absolute deviation, and at least twice the median: an unusual TD error."""
_LATE_TIMES, _LATE_SECONDS = 2.0, 0.05
"""A slow agent's gradient arrives later than this multiple of the median, and by more than this."""
_OUTLIER_SHARE = 0.01
"""Of its rounds: fewer outliers are chance."""
_YOUNG_ROUNDS = 200
_MOST_NEXT = 3
_PARTS = {
    "agents": "the agents",
    "network": "messages and waiting processes",
    "aggregation": "aggregation",
    "disk": "the disk",
}


def answers_of(facts: Facts) -> list[Answer]:
    """The answers, in the order of the page."""
    first = [_learning(facts), _worse_than_alone(facts), _unusual(facts), _slow(facts), _time(facts)]
    if facts.specification.improve:
        first.append(_policies(facts))
    return [*first, _next(facts, {answer.key: answer for answer in first})]


# Is it learning still? -----------------------------------------------------------------------------------------


def _learning(facts: Facts) -> Answer:
    question = "Is it still learning?"
    if facts.waiting:
        missing = max(0, facts.specification.agents - len(facts.agents))
        text = f"It waits for {missing} of {facts.specification.agents} agents."
        return Answer("learning", question, "Not begun", WARN, (text,))
    moved = _trend_sentence(facts.trend)
    errors = _error_sentence(facts)
    sentences = tuple(sentence for sentence in (moved, errors) if sentence)
    if facts.over:
        verdict = "Finished" if facts.ended_well else "Ended early"
        reason = (
            f"{facts.message[:1].upper()}{facts.message[1:].rstrip('.')}." if facts.message else "The run is over."
        )
        return Answer("learning", question, verdict, CALM if facts.ended_well else BAD, (reason, *sentences))
    if facts.draining or not facts.live:
        text = f"It stands at round {facts.rounds} and can be continued."
        return Answer("learning", question, "Interrupted", WARN, (text, *sentences))
    verdict, tone = _trend_verdict(facts.trend)
    text = "Too few rounds have closed to say." if facts.trend is None else ""
    return Answer("learning", question, verdict, tone, tuple(each for each in (text, *sentences) if each))


def _trend_verdict(trend: Trend | None) -> tuple[str, str]:
    if trend is None:
        return "Just begun", CALM
    if trend.what == "movement":
        return ("Yes, and settling", GOOD) if trend.change > SLOWLY else ("Unclear", CALM)
    if trend.what == "value error" and trend.change < -STILL:
        return "It gets worse", BAD
    if trend.change > STILL:
        return "Yes", GOOD
    return ("Slowly", CALM) if trend.change > SLOWLY else ("Hardly any more", CALM)


def _trend_sentence(trend: Trend | None) -> str:
    if trend is None:
        return ""
    if trend.what == "value error":
        went = "fell" if trend.change >= 0.0 else "rose"
        return (
            f"The median value error {went} by {abs(trend.change):.0%}, from {digits(trend.then)} in round "
            f"{trend.since:,} to {digits(trend.now)}."
        )
    if trend.what == "prior":
        return f"Since round {trend.since} what the fleet shares has changed by {trend.change:.1%}."
    return (
        f"A round turned the basis by {digits(trend.now)} on average since round {trend.since}, and by "
        f"{digits(trend.then)} in as many rounds before; the true values are not known here."
    )


def _error_sentence(facts: Facts) -> str:
    """The value error with its spread over the agents, where it is known."""
    middle = facts.series.newest("value_error")
    low, high = facts.series.newest("value_low"), facts.series.newest("value_high")
    if middle is None or low is None or high is None:
        return ""
    return f"Half of the agents have a value error between {digits(low)} and {digits(high)}; 0 is exact."


# Who? ------------------------------------------------------------------------------------------------------------


def _worse_than_alone(facts: Facts) -> Answer:
    key, question = "alone", "Who is worse than alone?"
    ratios = {name: each.ratio for name, each in facts.learnt.items() if each.ratio is not None}
    if not ratios:
        why = (
            "This coordinator does not know the true values. cospan run knows them where the workload has them."
            if facts.live
            else "The run folder holds no errors of the agents, or the workload has no true values."
        )
        return Answer(key, question, "Unknown", CALM, (why,))
    worse = sorted((name for name in ratios if ratios[name] > 1.0), key=lambda name: -ratios[name])
    usual = statistics.median(ratios.values())
    overall = f"The median error is {digits(usual)} times that of the better of LSTD alone and TD alone."
    if not worse:
        return Answer(key, question, f"None of {len(ratios):,}", GOOD, (overall,))
    named = f"The worst is {worse[0]}, with {digits(ratios[worse[0]])} times its error alone"
    tone = WARN if 2 * len(worse) <= len(ratios) else BAD
    return Answer(
        key, question, f"{len(worse):,} of {len(ratios):,}", tone, (f"{named}.", overall), tuple(worse[:_NAMED])
    )


def _unusual(facts: Facts) -> Answer:
    key, question = "unusual", "Who is unusual?"
    found: dict[str, list[str]] = {}
    for name, reason in (*_outliers(facts), *_own_answers(facts), *_far_td_errors(facts), *_bounded(facts)):
        found.setdefault(name, []).append(reason)
    if not found:
        if len(facts.agents) < _FEWEST:
            return Answer(key, question, "Too few to say", CALM, (f"That takes {_FEWEST} agents or more.",))
        return Answer(key, question, "None", GOOD, (f"{_looked_at(facts)} are alike enough.",))
    names = sorted(found, key=lambda name: -len(found[name]))
    sentences = tuple(f"{name}: {'; '.join(found[name])}." for name in names[:3])
    more = (f"{len(names) - 3:,} more in the table.",) if len(names) > 3 else ()
    return Answer(
        key, question, f"{len(names):,} of {len(facts.agents):,}", WARN, sentences + more, tuple(names[:_NAMED])
    )


def _looked_at(facts: Facts) -> str:
    parts = [
        *(["gradients"] if facts.live and facts.specification.method.aggregation.value != "mean" else []),
        *(["shared weights"] if any(each.shared_weight is not None for each in facts.learnt.values()) else []),
        *(["TD errors"] if len(facts.td_errors) >= _FEWEST else []),
    ]
    text = " and ".join(parts) or "The agents"
    return text[0].upper() + text[1:]


def _outliers(facts: Facts) -> Iterator[tuple[str, str]]:
    for agent in facts.agents:
        if agent.outlier_rounds > _OUTLIER_SHARE * max(1, agent.rounds_counted):
            yield agent.agent_id, f"its gradient was an outlier in {agent.outlier_rounds:,} rounds"


def _own_answers(facts: Facts) -> Iterator[tuple[str, str]]:
    known = {name: each.shared_weight for name, each in facts.learnt.items() if each.shared_weight is not None}
    if len(known) < _FEWEST or (usual := statistics.median(known.values())) <= _USUAL_WEIGHT:
        return
    for name, weight in sorted(known.items(), key=lambda pair: pair[1]):
        if weight < _OWN_WEIGHT:
            yield name, f"shared weight {weight:.2f} (median {usual:.2f}), so it answers from its own data"


def _far_td_errors(facts: Facts) -> Iterator[tuple[str, str]]:
    known = facts.td_errors
    if len(known) < _FEWEST:
        return
    usual = statistics.median(known.values())
    spread = 1.4826 * statistics.median(abs(error - usual) for error in known.values())
    for name, error in sorted(known.items(), key=lambda pair: -pair[1]):
        if error > max(usual + _FAR * spread, 2.0 * usual):
            yield name, f"TD error {digits(error)} (median {digits(usual)})"


def _bounded(facts: Facts) -> Iterator[tuple[str, str]]:
    for agent in facts.agents:
        if agent.head_bounded:
            yield agent.agent_id, "its head has reached head_radius, so its values are wrong"


def _slow(facts: Facts) -> Answer:
    key, question = "slow", "Who is slow?"
    if not facts.live:
        return _missing(facts)
    arrivals = {
        agent.agent_id: facts.arrivals[agent.agent_id]
        for agent in facts.agents
        if agent.phase is not AgentPhase.GONE and agent.agent_id in facts.arrivals
    }
    if not arrivals:
        return Answer(key, question, "Unknown yet", CALM, ("No round of this coordinator has closed yet.",))
    usual = statistics.median(arrivals.values())
    order = sorted(arrivals, key=lambda name: -arrivals[name])
    late = [name for name in order if arrivals[name] > max(_LATE_TIMES * usual, usual + _LATE_SECONDS)]
    last = f"the last, of {order[0]}, after {duration(arrivals[order[0]])}"
    if not late or len(arrivals) < 3:
        text = f"The median gradient arrives {duration(usual)} after its round opens, {last}."
        return Answer(key, question, "None", GOOD, (text,))
    named = listed([f"{name} ({duration(arrivals[name])})" for name in late], _NAMED)
    cost = "Rounds close without them after the deadline" if facts.has_quorum else "Every round waits for the last"
    text = f"{named}; the median gradient arrives after {duration(usual)}. {cost}."
    return Answer(key, question, f"{len(late):,} of {len(arrivals):,}", WARN, (text,), tuple(late[:_NAMED]))


def _missing(facts: Facts) -> Answer:
    """Of a stored run: whose gradients counted in fewer rounds than others'."""
    key, question = "slow", "Who is slow?"
    counted = {agent.agent_id: agent.rounds_counted for agent in facts.agents}
    most = max(counted.values(), default=0)
    fewer = sorted((name for name in counted if counted[name] < most), key=lambda name: counted[name])
    note = "When gradients arrived is not stored."
    if not fewer:
        return Answer(
            key, question, "None missed a round", GOOD, (f"Every agent counted in {most:,} rounds.", note)
        )
    named = listed([f"{name} ({counted[name]:,})" for name in fewer], _NAMED)
    text = f"Counted in fewer than {most:,} rounds: {named}."
    return Answer(key, question, f"{len(fewer):,} missed rounds", WARN, (text, note), tuple(fewer[:_NAMED]))


# Are policies getting better? ------------------------------------------------------------------------------------


def _policies(facts: Facts) -> Answer:
    """Of a run with improvement steps."""
    spec, question = facts.specification, "Are policies getting better?"
    place = spec.schedule.place(facts.rounds)
    improved = [agent.agent_id for agent in facts.agents if agent.policy_improved]
    if place.step == spec.improve:
        where = f"All {spec.improve} improvement steps are done."
    else:
        what, of = ("trial", spec.trial_rounds) if place.is_trial else ("evaluation", spec.evaluation_rounds)
        where = f"Improvement step {place.step + 1} of {spec.improve}: round {place.number + 1} of {of} of {what}."
    if not improved:
        return Answer("policies", question, "None yet", CALM, (where, "No agent has told of a better policy."))
    text = f"{listed(improved, _NAMED)} told of a policy that passed a trial."
    verdict = f"{len(improved):,} of {len(facts.agents):,} improved"
    return Answer("policies", question, verdict, GOOD, (where, text), tuple(improved[:_NAMED]))


# Where the time goes -------------------------------------------------------------------------------------------


def _time(facts: Facts) -> Answer:
    key, question = "time", "Where does the time of a round go?"
    parts = time_parts(facts)
    if not parts:
        times = facts.series.round_times
        if facts.live or times is None:
            return Answer(key, question, "Unknown yet", CALM, ("No round of this coordinator has closed yet.",))
        text = f"The median round took {duration(times[0])}, one in a hundred {duration(times[1])} or more."
        verdict = f"{duration(times[0])} a round"
        return Answer(
            key, question, verdict, CALM, (text, "Its parts are not stored; the live dashboard shows them.")
        )
    total = sum(parts.values())
    largest = max(parts, key=lambda part: parts[part])
    shares = ", ".join(f"{_named_part(part, parts)} {seconds / total:.0%}" for part, seconds in parts.items())
    verdict = f"{parts[largest] / total:.0%} {_named_part(largest, parts)}"
    return Answer(key, question, verdict, CALM, (f"Of {duration(total)} in the newest rounds: {shares}.",))


def _named_part(part: str, parts: dict[str, float]) -> str:
    return "agents and network" if part == "agents" and "network" not in parts else _PARTS[part]


def time_parts(facts: Facts) -> dict[str, float]:
    """Seconds of each part in the newest rounds; empty if they are unknown."""
    points = facts.series.points[-20:]
    found = {part: [value for p in points if (value := p.value(part)) is not None] for part in _PARTS}
    parts = {part: sum(values) / len(values) for part, values in found.items() if values}
    return parts if sum(parts.values()) > 0.0 else {}


# What next? ----------------------------------------------------------------------------------------------------


def _next(facts: Facts, answers: dict[str, Answer]) -> Answer:
    steps = [*_next_of_members(facts), *_next_of_sites(facts, answers), *_next_of_run(facts, answers)]
    tone = WARN if any(steps) and (facts.gone or answers["alone"].agents) else CALM
    verdict = "Nothing to do" if not steps else f"{min(len(steps), _MOST_NEXT)} suggestion{'s'[: len(steps) > 1]}"
    if not steps:
        steps = ["Let it run. Nothing here needs you."]
        tone = GOOD
    return Answer("next", "What next?", verdict, tone, tuple(steps[:_MOST_NEXT]))


def _next_of_members(facts: Facts) -> Iterator[str]:
    """On agents that are missing."""
    if facts.waiting:
        yield "Start the agents that are missing; the first round opens when all are here."
        return
    if facts.over:
        return
    lost = [agent.agent_id for agent in facts.agents if agent.phase is AgentPhase.LOST]
    if lost:
        limit = facts.specification.session_timeout_seconds
        yield f"The stream of {listed(lost, _NAMED)} is broken. The round waits for it up to {limit:g} s."
    if facts.gone and facts.live:
        names = listed([agent.agent_id for agent in facts.gone], _NAMED)
        yield f"{names}: gone. Its panel says why; started again, it continues from its own file."


def _next_of_sites(facts: Facts, answers: dict[str, Answer]) -> Iterator[str]:
    """On sites that the fleet does not serve well, and on slow ones."""
    worse, unusual = answers["alone"].agents, answers["unusual"].agents
    both = [name for name in worse if name in unusual]
    if both:
        yield f"{listed(both, _NAMED)}: worse than alone and unusual. Run such sites as a fleet of their own."
    elif worse and (facts.over or answers["learning"].verdict == "Hardly any more"):
        yield f"{listed(worse, _NAMED)}: use LSTD alone there; its weights are in the agent's file."
    elif worse and 2 * len(worse) > len(facts.learnt) and facts.rounds > _YOUNG_ROUNDS:
        yield "Most sites have enough data of their own by now: LSTD alone is as good or better there."
    elif worse:
        yield "Wait: errors of a young run change. If a site stays worse than alone, use its own LSTD there."
    if answers["slow"].agents and not facts.over:
        remedy = "a shorter deadline" if facts.has_quorum else "--quorum, so that rounds do not wait for it"
        if facts.specification.secure_sums:
            remedy = "a shorter --round-timeout-seconds; secure sums have no quorum"
        yield f"Look at {listed(answers['slow'].agents, _NAMED)}, or use {remedy}."


def _next_of_run(facts: Facts, answers: dict[str, Answer]) -> Iterator[str]:
    """On the run as a whole."""
    parts = time_parts(facts)
    if facts.live and not facts.over and parts:
        total = sum(parts.values())
        if parts.get("network", 0.0) + parts.get("disk", 0.0) > 0.6 * total and total > 1e-3:
            yield "Most of a round is not learning: more --steps-per-round means fewer, larger rounds."
    learning = answers["learning"].verdict
    if learning == "Hardly any more":
        yield "It has come to rest: more rounds hardly help. cospan stop ends it, and writes what it has learnt."
    elif learning == "Interrupted":
        yield "cospan runs shows the command that continues it."
    elif learning == "It gets worse":
        yield "Look at the unusual agents, and at the log for warnings."
    if facts.over:
        yield from _next_of_result(facts)
    if facts.spectrum is not None and facts.spectrum.source == "covariance" and facts.spectrum.verdict == "idle":
        yield f"The evidence uses {facts.spectrum.in_use} directions: --rank {facts.spectrum.in_use} would do."


def _next_of_result(facts: Facts) -> Iterator[str]:
    if not facts.ended_well:
        yield "The message above says what ended it; log.jsonl has the events before."
        return
    trend = facts.trend
    if trend is not None and trend.what != "movement" and trend.change > STILL:
        yield "It was still learning when it ended: a run with more --rounds would come further."
    share = median(each.ratio for each in facts.learnt.values())
    if share is not None and share < 1.0:
        yield "Use the value functions: agents/*.npz, read with ValueFunction.load; cospan export writes the basis."
