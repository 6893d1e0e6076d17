# The gateway's image: listener, indexer, api, sweep, migrate and every command. It carries the codecs, because the API
# draws pictures in a limited child; it carries no torch, no transformers and no embedded servers.
#
#   docker build --file deploy/gateway.Dockerfile --tag countersign-gateway:0.1.0 .
#
# The base is named by Python minor and Debian release. To pin it to the bit: --build-arg PYTHON_IMAGE=python@sha256:…
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
COPY LICENSE README.md ./
COPY gateway gateway
COPY worker worker
COPY record record
COPY migrations migrations
RUN uv pip install --no-deps .

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="countersign gateway" \
      org.opencontainers.image.description="The doors: DICOM listener, indexer, API and pages, sweep. Not a medical device." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 countersign \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin countersign \
 && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/countersign \
      /var/lib/countersign/store /var/lib/countersign/spool /var/lib/countersign/heads
COPY --from=build /opt/countersign /opt/countersign
ENV PATH=/opt/countersign/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
WORKDIR /var/lib/countersign
USER 10001:10001
EXPOSE 11112 8042
ENTRYPOINT ["countersign"]
CMD ["--help"]
