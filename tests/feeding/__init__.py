"""A live feed whose agent and sender are killed: no step is lost, none counts twice, and the agent catches up."""
