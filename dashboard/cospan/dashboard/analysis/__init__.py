"""What the dashboard and the report conclude from a run's numbers.

`learnt` has the numbers of each agent, `agent_history` their histories, `round_parts` the parts of a round's time,
`trend` whether the run still learns, and `answers` turns all of it into sentences. Begin with `answers`.
"""
