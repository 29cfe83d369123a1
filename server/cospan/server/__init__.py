"""The coordinator: a pure state machine, the loop that runs it, and the gRPC service around both."""
