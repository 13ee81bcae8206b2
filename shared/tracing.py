"""Traces: spans of OpenTelemetry, sent by OTLP where an endpoint is configured.

A trace is carried in the row of its job, as a `traceparent` of W3C's Trace Context. Spans hold ids,
names and numbers only, never what an exception says: that may quote a prompt.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from opentelemetry.context import Context
from opentelemetry.trace import NoOpTracer, Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.storage import ObjectStore, StoreCall

#: How long the end of a process may wait for its last spans to be sent, in seconds.
FLUSH_S = 1.0
_HEADER = "traceparent"
_W3C = TraceContextTextMapPropagator()

log = structlog.get_logger(__name__)

Attributes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Traces:
    """Where a process's spans go: nowhere, unless `start_tracing` was told of an endpoint."""

    tracer: Tracer
    #: Sends what is left, in bounded time.
    close: Callable[[], None] = lambda: None


def start_tracing(process: str, *, is_wanted: bool) -> Traces:
    """Make what a process writes spans with; OTEL_... variables say where they are sent."""
    nowhere = Traces(NoOpTracer())
    if not is_wanted:
        return nowhere
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("traces_off", reason="the SDK is missing: install latentq[traces]")
        return nowhere
    # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say wins over what stands here.
    resource = Resource.create({SERVICE_NAME: f"latentq-{process}"})
    resource = resource.merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))

    def close() -> None:
        # The SDK would wait for a collector that is silent for as long as that likes.
        flushing = threading.Thread(target=provider.force_flush, daemon=True)
        flushing.start()
        flushing.join(FLUSH_S)

    log.info("traces_on")
    return Traces(provider.get_tracer("latentq"), close)


@contextmanager
def span(
    tracer: Tracer,
    name: str,
    *,
    parent: str | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Attributes | None = None,
) -> Iterator[Span]:
    """Write a span around a block; of an exception it tells the kind alone.

    Args:
        tracer: What writes it.
        name: What the block does.
        parent: A `traceparent` that it continues; by default the span around it.
        kind: How it stands to other processes.
        attributes: Ids, names and numbers.
    """
    with tracer.start_as_current_span(
        name,
        context=_read(parent),
        kind=kind,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield current
        except BaseException as error:
            fail(current, type(error).__name__)
            raise


def fail(current: Span, kind: str) -> None:
    """Say of a span that it went wrong, and what kind of error it was."""
    current.set_status(StatusCode.ERROR)
    current.set_attribute("error.type", kind)


def record(
    tracer: Tracer,
    name: str,
    *,
    began_ago_s: float,
    ended_ago_s: float = 0.0,
    parent: str | None = None,
    attributes: Attributes | None = None,
) -> Span:
    """Write a span of what is over; when it began and ended is told by how long ago it was."""
    now_ns = time.time_ns()
    written = tracer.start_span(
        name,
        context=_read(parent),
        attributes=attributes,
        start_time=now_ns - int(began_ago_s * 1e9),
    )
    written.end(now_ns - int(ended_ago_s * 1e9))
    return written


def carry() -> str | None:
    """Return what continues the current span elsewhere; None if there is none that is kept."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier.get(_HEADER)


def trace_store(tracer: Tracer, store: ObjectStore) -> None:
    """Write a span of every call of the store that is made inside of another span."""

    def tell(call: StoreCall) -> None:
        if carry() is None:
            return
        written = tracer.start_span(
            f"S3 {call.operation}",
            kind=SpanKind.CLIENT,
            start_time=time.time_ns() - int(call.duration_s * 1e9),
        )
        if call.is_failed:
            fail(written, "StoreError")
        written.end()

    store.observe(tell)


def _read(traceparent: str | None) -> Context | None:
    return None if traceparent is None else _W3C.extract({_HEADER: traceparent})
