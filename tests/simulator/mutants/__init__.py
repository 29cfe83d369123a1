"""Faults planted in the machines that ship, to measure how many of them simulated runs find (`make mutants`)."""
