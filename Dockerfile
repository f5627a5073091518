# syntax=docker/dockerfile:1
# docker build --target cpu -t murmuration:cpu .        one server without a GPU; head and CPU nodes of a cluster
# docker build --target gpu -t murmuration:gpu .        nodes with NVIDIA GPUs (the host's driver, NVIDIA's container runtime)

FROM python:3.12-slim AS base
# wget is what KubeRay's health probes call.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends wget && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 ray && install -d -m 0700 -o ray /data
# Ray asks for its token, and Serve's HTTP servers are bounded, also where the image is started by `ray start`.
ENV PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0 MURMURATION_DATA_DIR=/data \
    RAY_AUTH_MODE=token RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=deployments.front.proxies:bounded
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY deployments deployments
COPY pipeline pipeline
COPY configs configs

FROM base AS cpu
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[embedded,s3,otel]"
USER 1000
VOLUME /data
EXPOSE 8000 8265
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s CMD ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8000/api/health/ready"]
CMD ["python", "-m", "deployments.run", "/app/configs/serve.cpu.yaml"]

FROM base AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[gpu,s3,otel]"
USER 1000
VOLUME /data
EXPOSE 8000 8265
HEALTHCHECK --interval=10s --timeout=5s --start-period=600s CMD ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8000/api/health/ready"]
CMD ["python", "-m", "deployments.run", "/app/configs/serve.gpu.yaml"]
