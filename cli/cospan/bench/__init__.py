"""The benchmarks behind `cospan bench`: each pairs its subject with a yardstick, in turns, in one run."""
