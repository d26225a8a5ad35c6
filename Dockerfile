# x86     docker build -t edge-resnet .
#         with TensorRT, for a GPU: --build-arg BASE=nvcr.io/nvidia/tensorrt:25.09-py3
#         and to train on it: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
# Jetson  docker build --target jetson --platform linux/arm64 -t edge-resnet:jetson .
#         on JetPack 6: --build-arg JETSON=nvcr.io/nvidia/l4t-tensorrt:r10.3.0-devel --build-arg PYTHON=python3.11
#         (its TensorRT speaks Python 3.10 only: ONNX files are judged there, engines are left to trtexec)
# to run  docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" edge-resnet build --arch resnet50 --precision int8
ARG BASE=debian:bookworm-20260918-slim@sha256:3783cc01769c7b2b1b83a5c5ad96c815348e28ed7da68e2e3687004faa906251
ARG JETSON=nvcr.io/nvidia/tensorrt:25.09-py3
ARG VERSION=0.2.0

FROM ${BASE} AS python
# No versions of Debian's packages: mirrors drop the old one with every security fix.
# The environment sees the system's packages, one of which is TensorRT where the base is NVIDIA's.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --system-site-packages /opt/edge-resnet \
    && useradd --no-log-init --create-home --uid 10001 edge \
    && install -d -o edge -g edge /data
ENV PATH=/opt/edge-resnet/bin:$PATH PIP_CONSTRAINT=/opt/edge-resnet/constraints.txt XDG_CACHE_HOME=/data/.cache
COPY constraints.txt /opt/edge-resnet/

FROM python AS wheel
WORKDIR /src
COPY LICENSE README.md pyproject.toml ./
COPY pipeline pipeline
COPY exporters exporters
COPY calibration calibration
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${JETSON} AS jetson
ARG JETSON
ARG PYTHON=python3
ARG VERSION
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends "${PYTHON}" "${PYTHON}-venv" \
    && rm -rf /var/lib/apt/lists/* \
    && "${PYTHON}" -m venv --system-site-packages /opt/edge-resnet \
    && useradd --no-log-init --create-home --uid 10001 edge \
    && install -d -o edge -g edge /data
ENV PATH=/opt/edge-resnet/bin:$PATH PIP_CONSTRAINT=/opt/edge-resnet/constraints.txt XDG_CACHE_HOME=/data/.cache
COPY constraints.txt /opt/edge-resnet/
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir --constraint "${PIP_CONSTRAINT}" --find-links /wheels 'edge-resnet[cpu]'
LABEL org.opencontainers.image.title="edge-resnet" \
      org.opencontainers.image.description="Judges engines of a ResNet or ResNeXt on the Jetson they are for" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${JETSON}"
WORKDIR /data
USER 10001:10001
ENTRYPOINT ["python", "-m", "pipeline"]
CMD ["doctor"]

FROM python AS x86
ARG BASE
ARG VERSION
# Alone: an index of CPU wheels has torch, but not all that torch needs in the versions pinned here.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --constraint "${PIP_CONSTRAINT}" --no-deps \
    ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} torch
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir --constraint "${PIP_CONSTRAINT}" --find-links /wheels 'edge-resnet[build,cpu,rtx]'
LABEL org.opencontainers.image.title="edge-resnet" \
      org.opencontainers.image.description="A ResNet or ResNeXt from PyTorch to a verified engine on an edge device" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE}"
WORKDIR /data
USER 10001:10001
ENTRYPOINT ["python", "-m", "pipeline"]
CMD ["doctor"]
