"""Workloads that come with Cospan: synthetic chains, access-control queues, microgrids."""
