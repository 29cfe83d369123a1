"""Exit code 0 where the coordinator of this container serves: asks the gRPC health service."""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051"
with grpc.insecure_channel(address) as channel:
    try:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=3)
    except grpc.RpcError as failure:
        sys.exit(f"{address}: {failure.code().name}")
sys.exit(0 if answer.status == health_pb2.HealthCheckResponse.SERVING else "not serving")
