"""The agent: what a user brings (workloads), what it learns, and how it speaks to the coordinator."""
