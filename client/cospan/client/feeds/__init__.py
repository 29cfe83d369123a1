"""Steps from a control loop that runs elsewhere, told to the agent as they happen, in place of an environment.

`feed` takes steps in and says what became of each; `told` is what it is told; `backlog` keeps the steps, in a file
where the agent has one; `step_forms` checks observations; `feed_source` is the `StepSource`; `step_messages` reads
steps of JSON; `site_feed` puts a feed in the place of an environment. How steps come from other processes is in
`cospan.cli.feeds`. Begin with `feed`.
"""
