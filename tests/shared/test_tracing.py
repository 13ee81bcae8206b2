import socket
import sys
import time

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracer, Tracer
from structlog.testing import capture_logs

from shared import tracing
from shared.settings import ApiSettings
from shared.tracing import carry, record, span, start_tracing

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Tracer:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test")


def test_a_trace_goes_on_from_what_was_carried(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    with span(tracer, "outer", parent=PARENT):
        carried = carry()
        with span(tracer, "inner"):
            pass
    assert carry() is None
    record(tracer, "elsewhere", began_ago_s=3.0, ended_ago_s=1.0, parent=carried)
    inner, outer, elsewhere = exporter.get_finished_spans()
    for written in (inner, outer, elsewhere):
        assert f"{written.context.trace_id:032x}" in PARENT
    assert f"{outer.parent.span_id:016x}" in PARENT
    assert inner.parent.span_id == elsewhere.parent.span_id == outer.context.span_id
    assert elsewhere.end_time - elsewhere.start_time == pytest.approx(2e9)
    assert elsewhere.end_time == pytest.approx(time.time_ns() - 1e9, abs=5e8)


def test_an_exception_is_named_and_not_quoted(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    with pytest.raises(ValueError, match="canary"), span(tracer, "work"):
        raise ValueError("canary")
    (written,) = exporter.get_finished_spans()
    assert not written.status.is_ok
    assert written.attributes == {"error.type": "ValueError"}
    assert "canary" not in written.to_json()


@pytest.mark.parametrize("parent", ["nonsense", "", "00-0-0-00"])
def test_what_cannot_be_read_begins_a_trace_of_its_own(
    tracer: Tracer, exporter: InMemorySpanExporter, parent: str
) -> None:
    with span(tracer, "work", parent=parent):
        pass
    assert exporter.get_finished_spans()[0].parent is None


def test_without_an_endpoint_nothing_is_carried_or_sent() -> None:
    traces = start_tracing("api", is_wanted=False)
    assert isinstance(traces.tracer, NoOpTracer)
    with span(traces.tracer, "work"):
        assert carry() is None
    traces.close()


def test_a_collector_that_is_silent_holds_up_nothing_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing, "FLUSH_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        traces = start_tracing("api", is_wanted=True)
        with span(traces.tracer, "work"):
            assert carry() is not None
        began_at = time.monotonic()
        traces.close()
        assert 0.1 <= time.monotonic() - began_at < 5
        connection, _ = silent.accept()  # somebody had called
        connection.close()


def test_a_missing_library_is_told_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with capture_logs() as logs:
        traces = start_tracing("api", is_wanted=True)
    assert isinstance(traces.tracer, NoOpTracer)
    assert logs == [
        {
            "event": "traces_off",
            "log_level": "warning",
            "reason": "the SDK is missing: install latentq[traces]",
        }
    ]


@pytest.mark.parametrize(
    ("variables", "wants"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
    ],
)
def test_the_standard_variables_turn_traces_on(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], *, wants: bool
) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY"):
        monkeypatch.setenv(f"LATENTQ_{name}", "x")
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ApiSettings.read().wants_traces is wants
