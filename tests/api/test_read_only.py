import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from shared.access import ALL_SCOPES, KeyTerms
from shared.db.read_only import ReadOnlyRepository
from shared.db.tables import metadata
from tests.fixtures.api import Api

#: What has a body and changes nothing.
ESTIMATE = "/v1/estimates"
REASON = "the database moves"


@pytest.fixture
def closed(api: Api) -> Api:
    """The API, of which the operator has closed the service."""
    ReadOnlyRepository(api.database).turn_on(REASON)
    api.services.read_only.refresh()
    return api


def rows(database: sa.Engine) -> dict[str, int]:
    with database.connect() as connection:
        return {
            name: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
            for name, table in metadata.tables.items()
        }


def test_whatever_may_change_something_is_refused_and_changes_nothing(closed: Api) -> None:
    client = closed.new_client(terms=KeyTerms(scopes=ALL_SCOPES))
    before = rows(closed.database)
    changing = [
        (method, path)
        for path, operations in client.get("/openapi.json").json()["paths"].items()
        for method in operations
        if method != "get" and path != ESTIMATE
    ]
    assert len(changing) > 20
    for method, path in changing:
        answer = client.request(method, path, json={"prompt": "a red star"})
        assert (answer.status_code, answer.json()["code"]) == (503, "read_only"), path
        assert answer.headers["Retry-After"] == "30"
        assert REASON in answer.json()["detail"]
    assert rows(closed.database) == before


def test_reading_and_estimating_go_on(closed: Api) -> None:
    ReadOnlyRepository(closed.database).turn_off()
    closed.services.read_only.refresh()
    job = closed.submit()
    ReadOnlyRepository(closed.database).turn_on(REASON)
    closed.services.read_only.refresh()
    assert closed.client.get(f"/v1/jobs/{job['id']}").json()["status"] == "queued"
    assert closed.client.get("/v1/jobs").status_code == 200
    assert closed.client.post(ESTIMATE, json={"prompt": "a red star"}).status_code == 200


def test_who_has_no_key_learns_nothing_of_it(closed: Api) -> None:
    stranger = TestClient(closed.client.app)
    assert stranger.post("/v1/jobs", json={"prompt": "p"}).status_code == 401


def test_a_process_follows_the_operator_from_one_look_to_the_next(api: Api) -> None:
    operator = ReadOnlyRepository(api.database)
    mode = api.services.read_only
    seen = []
    for act in (lambda: operator.turn_on("one"), lambda: operator.turn_on("two"),
                operator.turn_off, operator.turn_off):  # fmt: skip
        act()
        mode.refresh()
        body = api.client.get("/readyz").json()
        assert body["status"] == "ready"
        seen.append((body["read_only"], api.client.post("/v1/jobs", json={"prompt": "p"})))
    assert [is_on for is_on, _ in seen] == [True, True, False, False]
    assert [answer.status_code for _, answer in seen] == [503, 503, 202, 202]
    assert "two" in seen[1][1].json()["detail"]


def test_the_notice_is_as_old_as_the_closing(database: sa.Engine) -> None:
    operator = ReadOnlyRepository(database)
    assert operator.find() is None
    first = operator.turn_on("one")
    second = operator.turn_on("two")
    assert second.since == first.since
    assert operator.find() == second
    assert [operator.turn_off(), operator.turn_off()] == [True, False]
    assert operator.find() is None
