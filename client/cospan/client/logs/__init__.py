"""Steps from recorded data: CSV and Parquet files, Minari datasets and data frames, in place of an environment.

A mapping (`mapping`) says which columns are the observation, the reward and the time. `tables` reads files in
batches, `rows` makes rows of them and finds the gaps, `log_source` is the `StepSource`, `log_workload` the fleet,
and `check` says what is wrong before anything is learnt. Begin with `mapping`.
"""
