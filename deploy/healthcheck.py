"""Exit code 0 where the coordinator of this container serves: asks the gRPC health service.

With TLS it shows the coordinator's own certificate, which must also be for 127.0.0.1: those of `cospan certs` are.
"""

import os
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

DIRECTLY = [("grpc.enable_http_proxy", 0)]  # it is this container's own, whatever http_proxy says
address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:15051"
files = [os.environ.get(f"COSPAN_TLS_{name}") for name in ("CA", "KEY", "CERT")]
if all(files):
    credentials = grpc.ssl_channel_credentials(*(Path(str(file)).read_bytes() for file in files))
    connecting = grpc.secure_channel(address, credentials, options=DIRECTLY)
else:
    connecting = grpc.insecure_channel(address, options=DIRECTLY)
with connecting as channel:
    try:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=3)
    except grpc.RpcError as failure:
        sys.exit(f"{address}: {failure.code().name}")
sys.exit(0 if answer.status == health_pb2.HealthCheckResponse.SERVING else "not serving")
