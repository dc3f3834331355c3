# One model: Triton, the model's Python environment, its folder of the model repository, and the
# scripts of its pod. Build from the repository's root:
#   docker build --file deploy/docker/triton.Dockerfile --build-arg MODEL=sam2_tracker \
#     --tag touchline/sam2-tracker:0.1.0 .
# BASE     must be the release whose TensorRT builds the engines (see deploy/README.md)
# WEIGHTS  none: an init container brings and verifies them; demo: the small ones of the `cpu` variant
ARG BASE=nvcr.io/nvidia/tritonserver:26.08-py3
ARG WEIGHTS=none

FROM ${BASE} AS environment
ARG MODEL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 SAM2_BUILD_CUDA=0
COPY deploy/docker/requirements /requirements
# Without pip of its own: it is never called in a pod, and Ubuntu's venv lacks it anyway.
RUN python3 -m venv --without-pip /opt/venv && \
    python3 -m pip --python /opt/venv/bin/python install --requirement "/requirements/${MODEL}.txt"
# A source package is built against the torch that was just installed.
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN if [ -e "/requirements/${MODEL}.source.txt" ]; then \
      python3 -m pip --python /opt/venv/bin/python install "setuptools<82" wheel && \
      python3 -m pip --python /opt/venv/bin/python install --no-build-isolation --no-deps \
        --requirement "/requirements/${MODEL}.source.txt"; \
    fi

FROM ${BASE} AS repository
ARG MODEL
COPY model_repository/${MODEL} /models/${MODEL}
RUN rm -r "/models/${MODEL}/weights"

FROM scratch AS weights-none
ARG MODEL
COPY model_repository/${MODEL}/weights/README.md /weights/

FROM scratch AS weights-demo
ARG MODEL
COPY model_repository/${MODEL}/weights /weights

# hadolint ignore=DL3006
FROM weights-${WEIGHTS} AS weights

FROM ${BASE}
ARG MODEL
LABEL org.opencontainers.image.title="touchline ${MODEL}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=environment /opt/venv /opt/venv
COPY --from=repository /models /models
COPY --from=weights /weights /models/${MODEL}/weights
COPY deploy/docker/pod training/weights/registry.json /opt/touchline/
# The Python of the model processes is the first one on PATH.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp
USER 1000:1000
EXPOSE 8000 8001 8002
ENTRYPOINT ["tritonserver", "--model-repository=/models", "--disable-auto-complete-config"]
