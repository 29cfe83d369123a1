"""A run's numbers in experiment trackers: during the run (`--track`), and afterwards (`cospan export --to`).

Begin with `points`: what is tracked, under which names. `sink` says what a tracker must do, `tensorboard_sink` and
`mlflow_sink` do it, `feeder` feeds them beside a run, and `afterwards` from a run folder.
"""
