# Tag seen in docker-library/official-images, library/python, at 37079fb (2026-08-21).
FROM python:3.13.15-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /opt/extauth
COPY requirements/image.txt requirements/build.txt requirements/
RUN python -m pip --python /opt/extauth/bin/python install --require-hashes --only-binary :all: -r requirements/image.txt
RUN python -m venv /opt/build \
 && /opt/build/bin/python -m pip install --require-hashes --only-binary :all: -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY extauth/ extauth/
RUN /opt/build/bin/python -m pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheels . \
 && python -m pip --python /opt/extauth/bin/python install --no-deps --no-index /wheels/*.whl

FROM python:3.13.15-slim-bookworm
ARG VERSION=
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="extauth" \
      org.opencontainers.image.description="A global rate limit service for Envoy" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/python:3.13.15-slim-bookworm" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
COPY --from=build /opt/extauth /opt/extauth
# envoyproxy/ratelimit is started by this path, or by this name, and then its variables are read.
COPY deploy/image/ratelimit deploy/image/healthcheck /opt/extauth/bin/
RUN ln -s /opt/extauth/bin/ratelimit /bin/ratelimit
# The byte code was written at install time, so a read-only root costs nothing. Loopback, the default, would reach nobody
# from inside a container.
ENV PATH=/opt/extauth/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    EXTAUTH_CONFIG=/etc/extauth \
    EXTAUTH_GRPC_LISTEN=0.0.0.0:8081 \
    EXTAUTH_ADMIN_LISTEN=0.0.0.0:6070
USER 10001:10001
# As ratelimit it has two ports more: /healthcheck and /json, and metrics.
EXPOSE 8081 6070 8080 19001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["healthcheck"]
# No ENTRYPOINT: `command: /bin/ratelimit` of a compose file, which Docker would append to one, is then what is started.
CMD ["extauth", "serve"]
