from contextlib import suppress

import httpx
import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from bench.cluster import open_store
from cli.standalone.servers import Servers
from shared.db.session import make_engine
from shared.errors import ConfigurationError, NotFound, StorageUnavailable
from shared.metrics import StoreLatency, new_registry, serve_metrics
from tests.fixtures.stack import free_port


def test_a_process_shows_itself_until_its_port_is_taken() -> None:
    registry, port = new_registry(version="1.2.3"), free_port()
    serve_metrics(registry, host="127.0.0.1", port=port)
    page = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert 'latentq_build_info{version="1.2.3"} 1.0' in page
    assert "process_resident_memory_bytes" in page
    with pytest.raises(ConfigurationError, match="LATENTQ_METRICS_PORT"):
        serve_metrics(registry, host="127.0.0.1", port=port)


def test_statements_are_timed_and_failures_counted(database: sa.Engine, database_url: str) -> None:
    registry = CollectorRegistry()
    engine = make_engine(database_url)
    StoreLatency(registry).watch_database(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("SELECT pg_sleep(0.03)"))
    with suppress(sa.exc.ProgrammingError), engine.begin() as connection:
        connection.execute(sa.text("SELECT nothing"))
    engine.dispose()
    # SQLAlchemy asks for a few things itself when it connects first.
    assert registry.get_sample_value("latentq_sql_seconds_count") >= 1
    assert registry.get_sample_value("latentq_sql_seconds_sum") >= 0.03
    assert registry.get_sample_value("latentq_sql_errors_total") == 1


def test_calls_of_a_store_are_timed_by_what_they_do(servers: Servers) -> None:
    registry = CollectorRegistry()
    latency = StoreLatency(registry)
    store, away = (
        open_store(servers, endpoint=endpoint)
        for endpoint in (servers.s3_endpoint, f"http://127.0.0.1:{free_port()}")
    )
    latency.watch_store(store)
    latency.watch_store(away)
    store.put("metrics/1", b"x", content_type="text/plain")
    assert store.get("metrics/1") == b"x"
    with pytest.raises(NotFound):
        store.get("metrics/2")
    with pytest.raises(StorageUnavailable):
        away.list_page("metrics/")

    def read(name: str, operation: str) -> float | None:
        return registry.get_sample_value(name, {"operation": operation})

    assert read("latentq_s3_seconds_count", "PutObject") == 1
    assert read("latentq_s3_seconds_count", "GetObject") == 2
    assert read("latentq_s3_seconds_count", "ListObjectsV2") == 1
    # That there is no such object is an answer.
    assert read("latentq_s3_errors_total", "GetObject") is None
    assert read("latentq_s3_errors_total", "ListObjectsV2") == 1
