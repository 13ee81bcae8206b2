import threading

import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.health import Health, check_database
from shared.db.jobs import JobRepository
from shared.db.session import make_engine
from shared.errors import ServiceUnavailable
from tests.fixtures.api import Api


def answer_ping() -> None:
    return None


def refuse_ping() -> None:
    raise ServiceUnavailable("Redis does not answer")


def test_the_process_is_alive_without_a_key(api: Api) -> None:
    answer = TestClient(api.client.app).get("/livez")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


def test_it_is_ready_when_all_stores_answer(api: Api) -> None:
    health = Health(api.services.jobs.ping, {"redis": answer_ping, "s3": answer_ping})
    answer = api.new_client(health=health).get("/readyz", headers={"Authorization": ""})
    checks = {"postgresql": "ok", "redis": "ok", "s3": "ok"}
    told = {"status": "ready", "checks": checks, "read_only": False}
    assert (answer.status_code, answer.json()) == (200, told)


def test_it_is_degraded_while_another_store_is_away_or_slow(api: Api) -> None:
    released = threading.Event()
    asked = []

    def hang() -> None:
        asked.append(None)
        released.wait()

    health = Health(api.services.jobs.ping, {"redis": refuse_ping, "s3": hang}, patience_s=0.2)
    client = api.new_client(health=health)
    checks = {"postgresql": "ok", "redis": "Redis does not answer", "s3": "no answer in time"}
    for _ in range(3):
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()) == (
            200,
            {"status": "degraded", "checks": checks, "read_only": False},
        )
    assert len(asked) == 1
    released.set()


def test_it_is_not_ready_without_postgresql(api: Api) -> None:
    nowhere = JobRepository(make_engine("postgresql://nobody@127.0.0.1:1/nothing"))
    answer = api.new_client(health=Health(nowhere.ping, {})).get("/readyz")
    assert (answer.status_code, answer.json()["detail"]) == (503, "PostgreSQL does not answer")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "Retry-After" in answer.headers


def test_it_is_not_ready_with_migrations_missing(api: Api, database: sa.Engine) -> None:
    health = Health(lambda: check_database(JobRepository(database), database), {})
    client = api.new_client(health=health)
    assert client.get("/readyz").status_code == 200
    with database.connect() as connection:
        version = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    set_version(database, "0001")
    try:
        answer = client.get("/readyz")
    finally:
        set_version(database, version)
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    assert "latentq migrate" in answer.json()["detail"]


def set_version(database: sa.Engine, version: str) -> None:
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :v"), {"v": version})
