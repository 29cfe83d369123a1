"""The same scripts of kills and restarts in the simulator and with real processes: do both end alike?

`script` draws a script and performs it on a `Stage`; `played` is the simulator's, `processes` that of real ones
over loopback gRPC, whose coordinator and agents are in `coordinator_main` and `agent_main`.
"""
