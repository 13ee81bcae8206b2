"""`/metrics` of a process: its registry, its port, and how long its stores take to answer."""

import time
from typing import Any

import sqlalchemy as sa
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from shared.errors import ConfigurationError
from shared.storage import ObjectStore, StoreCall

#: Upper ends of the buckets of what stores take, in seconds; time-outs lie above the last.
STORE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BEGAN_AT = "latentq.began_at"


def new_registry(*, version: str) -> CollectorRegistry:
    """Make what a process shows: itself, to begin with."""
    # A line more for each count, which nobody reads.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    build = Gauge(
        "latentq_build_info", "1, with the version of the program", ["version"], registry=registry
    )
    build.labels(version).set(1)
    return registry


class StoreLatency:
    """What PostgreSQL and the object store take, seen at the gateways that all calls go through."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._sql_s = Histogram(
            "latentq_sql_seconds",
            "Time of a statement of SQL, from its sending to its answer",
            buckets=STORE_BUCKETS,
            registry=registry,
        )
        self._sql_errors = Counter(
            "latentq_sql_errors", "Statements of SQL that failed", registry=registry
        )
        self._s3_s = Histogram(
            "latentq_s3_seconds",
            "Time of a call of the object store, tries that failed counted in",
            ["operation"],
            buckets=STORE_BUCKETS,
            registry=registry,
        )
        self._s3_errors = Counter(
            "latentq_s3_errors",
            "Calls of the object store that it did not answer, or with 500 and more",
            ["operation"],
            registry=registry,
        )

    def watch_database(self, engine: sa.Engine) -> None:
        """Time every statement of an engine from now on."""
        sa.event.listen(engine, "before_cursor_execute", _note_start)
        sa.event.listen(engine, "after_cursor_execute", self._note_statement)
        sa.event.listen(engine, "handle_error", self._note_error)

    def watch_store(self, store: ObjectStore) -> None:
        """Time every call of a store from now on."""
        store.observe(self._note_call)

    def _note_statement(self, connection: sa.Connection, *_: Any) -> None:
        self._sql_s.observe(time.perf_counter() - connection.info[_BEGAN_AT])

    def _note_error(self, _context: sa.ExceptionContext) -> None:
        self._sql_errors.inc()

    def _note_call(self, call: StoreCall) -> None:
        self._s3_s.labels(call.operation).observe(call.duration_s)
        if call.is_failed:
            self._s3_errors.labels(call.operation).inc()


def serve_metrics(registry: CollectorRegistry, *, host: str, port: int | None) -> None:
    """Answer scrapes from now on, in a thread of its own; without a port there is nothing to do.

    Raises:
        ConfigurationError: The port cannot be had.
    """
    if port is None:
        return
    try:
        start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ConfigurationError(
            f"LATENTQ_METRICS_PORT: {host}:{port} cannot be listened on: {error.strerror}"
        ) from error


def _note_start(connection: sa.Connection, *_: Any) -> None:
    connection.info[_BEGAN_AT] = time.perf_counter()
