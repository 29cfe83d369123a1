# One image for the coordinator and for agents; they differ by their command.
# Every instruction works with Docker's legacy builder too: no `# syntax=` line and no `RUN --mount`.
ARG BASE_IMAGE=python:3.12-slim-bookworm

FROM ${BASE_IMAGE} AS build
# Empty for the package index; or, with wheels in ./wheels, PIP_NO_INDEX=1 and PIP_FIND_LINKS=/src/wheels.
ARG PIP_NO_INDEX=
ARG PIP_FIND_LINKS=
WORKDIR /src
RUN python3 -m venv /opt/venv
COPY pyproject.toml README.md LICENSE wheel[s] ./wheels/
RUN mv wheels/pyproject.toml wheels/README.md wheels/LICENSE .
COPY proto proto
COPY common common
COPY server server
COPY client client
COPY relay relay
COPY dashboard dashboard
COPY lab lab
COPY cli cli
RUN /opt/venv/bin/python -m pip wheel --quiet --no-cache-dir --no-deps --wheel-dir /tmp/wheel . \
 && /opt/venv/bin/python -m pip install --quiet --no-cache-dir --no-compile "$(echo /tmp/wheel/*.whl)[metrics,dashboard,tls]" \
 && /opt/venv/bin/python -m pip uninstall --quiet --yes pip setuptools \
 && find /opt/venv -type d \( -name tests -o -name __pycache__ \) -prune -exec rm -rf {} +
# Last, so that it invalidates no cached layer: the label identifies the image of this stage, to remove it later.
ARG BUILD_ID=local
LABEL dev.cospan.build="${BUILD_ID}"

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG BUILD_ID=local
LABEL dev.cospan.build="${BUILD_ID}" \
      org.opencontainers.image.title="Cospan" \
      org.opencontainers.image.description="Personal long-run value functions for a whole fleet, learnt together over gRPC" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN echo 'cospan:x:10001:10001:Cospan:/var/lib/cospan:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'cospan:x:10001:' >> /etc/group \
 && mkdir -p /var/lib/cospan \
 && chown 10001:10001 /var/lib/cospan
COPY --from=build /opt/venv /opt/venv
COPY deploy/healthcheck.py /opt/healthcheck.py
# The compiled modules of all that a fleet imports, of the standard library too. Containers are read-only: without
# them each would compile these modules at each start, and so would each health check, in three times the time.
RUN /opt/venv/bin/python -m compileall -q /opt/venv/lib/python3.*/site-packages/cospan \
 && /opt/venv/bin/python -c "import cospan.cli.commands.agent, cospan.cli.commands.coordinator, cospan.cli.commands.relay" \
 && /opt/venv/bin/python -c "import cospan.cli.commands.run, cospan.cli.commands.status, cospan.dashboard.app, uvicorn" \
 && /opt/venv/bin/python -c "import cospan.server.telemetry.http, cospan.client.workloads.microgrids, grpc_health.v1.health_pb2_grpc"
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OPENBLAS_NUM_THREADS=1 \
    COSPAN_ONCE=true
USER 10001:10001
# A workload of your own is found in the working folder: mount it here, or build FROM this image and copy it.
WORKDIR /work
EXPOSE 15051
# Says how a coordinator is. An agent listens to nothing: compose switches this off for it.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["python", "/opt/healthcheck.py"]
ENTRYPOINT ["cospan"]
CMD ["--help"]
