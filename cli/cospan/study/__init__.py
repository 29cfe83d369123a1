"""Studies: several methods over the same transitions, the experiments of docs/experiments, their figures."""
