"""From learnt values to better policies: what a site knows of its actions, the greedy policy, and its trial.

What a workload provides is `cospan.client.workload.Decisions`. Begin with `policy`.
"""
