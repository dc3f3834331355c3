# The orchestrator: slim, read-only, run by a user without rights.
# Build from the repository's root:
#   docker build --file deploy/docker/orchestrator.Dockerfile --tag touchline/orchestrator:0.1.0 .
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /source
COPY pyproject.toml requirements.lock README.md LICENSE THIRD_PARTY_NOTICES.md ./
COPY orchestrator orchestrator
COPY protos protos
# What is needed stands in pyproject.toml, in which version in requirements.lock.
RUN python3 -m venv /opt/venv && \
    /opt/venv/bin/pip install --constraint requirements.lock .

FROM ${BASE}
LABEL org.opencontainers.image.title="touchline orchestrator" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1
WORKDIR /
USER 1000:1000
EXPOSE 50051 9090
ENTRYPOINT ["python3", "-m", "orchestrator"]
