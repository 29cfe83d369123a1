"""What operators see of a run: status, Prometheus metrics, OpenTelemetry spans.

Nothing here changes a run. Begin with `run_status`.
"""
