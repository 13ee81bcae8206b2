# `latentq api`, `dispatcher`, `migrate` and the clients, without torch:
# docker build --file deploy/service.Dockerfile --tag latentq-service:0.1.0 .

FROM python:3.11.14-slim-trixie AS build
# Another package index, if the network has one.
ARG PIP_INDEX_URL
# With the date fixed, wheels and compiled files are the same whenever they are built.
ENV SOURCE_DATE_EPOCH=1767225600 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements requirements
RUN python -m venv /opt/latentq \
    && sed -n '/^setuptools==/,/[^\\]$/p' requirements/lock.txt > setuptools.txt \
    && python -m pip install --require-hashes --requirement setuptools.txt \
    && /opt/latentq/bin/python -m pip install --require-hashes --requirement requirements/service.txt
COPY . .
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && /opt/latentq/bin/python -m pip install --no-deps --no-index wheels/*.whl

FROM python:3.11.14-slim-trixie
RUN echo 'latentq:x:10001:10001::/tmp:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'latentq:x:10001:' >> /etc/group
COPY --from=build /opt/latentq /opt/latentq
ENV PATH=/opt/latentq/bin:$PATH PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
USER 10001:10001
# HTTP, metrics.
EXPOSE 8000 9464
ENTRYPOINT ["latentq"]
CMD ["api", "--host", "0.0.0.0", "--port", "8000"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["latentq", "alive", "api", "--port", "8000"]
