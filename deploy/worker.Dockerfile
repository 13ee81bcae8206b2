# `latentq worker`, with torch:
# docker build --file deploy/worker.Dockerfile --tag latentq-worker:0.1.0 .

FROM python:3.11.14-slim-trixie AS build
# Another package index, if the network has one; one more may hold other builds of torch.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
# With the date fixed, wheels and compiled files are the same whenever they are built.
ENV SOURCE_DATE_EPOCH=1767225600 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements requirements
RUN python -m venv /opt/latentq \
    && sed -n '/^setuptools==/,/[^\\]$/p' requirements/lock.txt > setuptools.txt \
    && python -m pip install --require-hashes --requirement setuptools.txt \
    && /opt/latentq/bin/python -m pip install --require-hashes --requirement requirements/worker.txt \
    && /opt/latentq/bin/python -m pip install --requirement requirements/torch.txt
COPY . .
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && /opt/latentq/bin/python -m pip install --no-deps --no-index wheels/*.whl

FROM python:3.11.14-slim-trixie
RUN echo 'latentq:x:10001:10001::/tmp:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'latentq:x:10001:' >> /etc/group
COPY --from=build /opt/latentq /opt/latentq
# Models come from folders: nothing is ever looked up on a hub.
ENV PATH=/opt/latentq/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /tmp
USER 10001:10001
# Metrics.
EXPOSE 9464
ENTRYPOINT ["latentq"]
CMD ["worker"]
HEALTHCHECK --interval=30s --timeout=10s --start-period=15m --start-interval=5s \
    CMD ["latentq", "alive", "worker"]
