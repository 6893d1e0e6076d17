# The workers' images, two targets of one file: `preparing` (the cpu worker: codecs, no torch) and `drafting` (the gpu
# worker: the same with torch and transformers, for a model in its own process; where COUNTERSIGN_ENGINE_URL names an
# engine's server, `preparing` does for both).
#
#   docker build --file deploy/worker.Dockerfile --target preparing --tag countersign-worker-cpu:0.1.0 .
#   docker build --file deploy/worker.Dockerfile --target drafting --build-arg TORCH_BACKEND=cu130 \
#     --tag countersign-worker-gpu:0.1.0-cu130 .
#
# TORCH_BACKEND is uv's word: cpu, cu126, cu130, rocm7.2 … Every build of torch has another hash, so torch is pinned by its
# version, everything else by hash. The base is named by Python minor and Debian release; to pin it to the bit:
# --build-arg PYTHON_IMAGE=python@sha256:…
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG UV_VERSION=0.13.9
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV=/opt/countersign
RUN pip install --no-cache-dir --root-user-action=ignore uv==${UV_VERSION}
RUN uv venv /opt/countersign
WORKDIR /source
COPY pyproject.toml ./
COPY requirements/base.lock requirements/
COPY deploy/packages.py deploy/
RUN python deploy/packages.py > packages.lock
RUN uv pip install --no-deps --require-hashes --requirement packages.lock

FROM build AS build-with-model
ARG TORCH_VERSION=2.13.0
ARG TORCH_BACKEND=cpu
RUN python deploy/packages.py --model > model.lock
RUN uv pip install --no-deps --require-hashes --requirement model.lock
RUN uv pip install --torch-backend=${TORCH_BACKEND} torch==${TORCH_VERSION}

FROM build AS wheel
COPY LICENSE README.md ./
COPY gateway gateway
COPY worker worker
COPY record record
COPY migrations migrations
RUN uv build --wheel --out-dir /wheels

FROM build AS packages
COPY --from=wheel /wheels /wheels
RUN uv pip install --no-deps /wheels/*.whl

FROM build-with-model AS packages-with-model
COPY --from=wheel /wheels /wheels
RUN uv pip install --no-deps /wheels/*.whl

FROM ${PYTHON_IMAGE} AS runtime
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="countersign worker" \
      org.opencontainers.image.description="The reading room: prepares pictures, runs the model. Not a medical device." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 countersign \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin countersign \
 && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/countersign \
      /var/lib/countersign/store /var/lib/countersign/spool /var/lib/countersign/heads
ENV PATH=/opt/countersign/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
WORKDIR /var/lib/countersign
USER 10001:10001
ENTRYPOINT ["countersign"]

FROM runtime AS preparing
COPY --from=packages /opt/countersign /opt/countersign
CMD ["worker", "cpu"]

FROM runtime AS drafting
COPY --from=packages-with-model /opt/countersign /opt/countersign
ENV HF_HUB_OFFLINE=1
CMD ["worker", "gpu"]
