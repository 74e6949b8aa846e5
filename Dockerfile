# syntax=docker/dockerfile:1

# A release pins the digest as well: --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:<digest>
# Both stages use it: the venv's python is a link to the one of its base.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS builder
WORKDIR /build
# Without pip inside: the venv is all that reaches the final stage.
RUN python -m venv --without-pip /opt/genesys-consumer
COPY requirements/build.txt requirements/runtime.txt requirements/
# The build system goes into the builder's own Python, by hash too: build isolation would fetch it unchecked.
RUN pip --python /opt/genesys-consumer/bin/python install \
       --no-cache-dir --no-deps --require-hashes --only-binary=:all: -r requirements/runtime.txt \
    && pip install --no-cache-dir --no-deps --require-hashes --only-binary=:all: -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY consumer consumer
COPY mappings mappings
COPY schemas schemas
RUN pip wheel --no-build-isolation --no-deps --wheel-dir dist . \
    && pip --python /opt/genesys-consumer/bin/python install --no-cache-dir --no-deps --no-index dist/*.whl

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="genesys-consumer" \
      org.opencontainers.image.description="Keeps a Genesys Cloud outbound contact list equal to what a CRM says, event by event, from Kafka." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

RUN groupadd --gid 65532 nonroot \
    && useradd --uid 65532 --gid 65532 --no-log-init --no-create-home \
       --home-dir /var/lib/genesys-consumer --shell /usr/sbin/nologin nonroot \
    && install --directory --owner=65532 --group=65532 --mode=0750 /var/lib/genesys-consumer \
    && python -m pip uninstall --yes --quiet setuptools wheel pip
COPY --from=builder /opt/genesys-consumer /opt/genesys-consumer

# The root file system may be read-only: bytecode was compiled by the builder, state goes to the volume.
ENV PATH="/opt/genesys-consumer/bin:${PATH}" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    STATE_DIR=/var/lib/genesys-consumer
VOLUME ["/var/lib/genesys-consumer"]
EXPOSE 8080
USER 65532:65532
ENTRYPOINT ["genesys-consumer"]
CMD ["run"]
