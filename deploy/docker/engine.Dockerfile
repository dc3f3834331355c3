# `touchline engine build`: the TensorRT of the same release as the Triton image. Build from the
# repository's root:
#   docker build --file deploy/docker/engine.Dockerfile --tag touchline/engine-builder:0.1.0 .
ARG BASE=nvcr.io/nvidia/tensorrt:26.08-py3

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY deploy/docker/requirements/engine.txt /requirements/
# With the image's own packages, TensorRT's Python module above all.
RUN python3 -m venv --without-pip --system-site-packages /opt/venv && \
    python3 -m pip --python /opt/venv/bin/python install --requirement /requirements/engine.txt
WORKDIR /source
COPY pyproject.toml README.md LICENSE THIRD_PARTY_NOTICES.md ./
COPY orchestrator orchestrator
COPY protos protos
COPY training training
# The image brings another Python than the serving side is pinned to; the engine tools run on both.
RUN python3 -m pip --python /opt/venv/bin/python install --no-deps --ignore-requires-python .

FROM ${BASE}
LABEL org.opencontainers.image.title="touchline engine builder" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /
USER 1000:1000
ENTRYPOINT ["python3", "-m", "training", "engine"]
