from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from shared.db.deliveries import Attempt, DeliveryRepository
from shared.webhook import Outcome
from tests.fixtures.api import Api

URL = "https://hooks.example.com/latentq?token=secret-canary"


def cancel(api: Api, **body: Any) -> str:
    """Have a job end, and its end waiting to be told."""
    job_id: str = api.submit(webhook={"url": URL}, **body)["id"]
    assert api.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
    return job_id


def attempt(api: Api, outcome: Outcome, status_code: int | None) -> None:
    """Make the attempt that is due, with this end."""
    repository = DeliveryRepository(api.database)
    (claim,) = repository.claim(limit=1, per_host=1, rooms={}, lease_s=60)
    ended = Attempt(outcome, status_code, timedelta(seconds=1.5))
    assert repository.record(claim, ended, retry_in_s=None)


def deliveries(api: Api, **query: str) -> list[dict[str, Any]]:
    answer = api.client.get("/v1/deliveries", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def test_a_delivery_shows_what_was_tried_and_not_where_or_what(api: Api) -> None:
    job_id = cancel(api)
    (waiting,) = deliveries(api)
    assert waiting["status"] == "pending"
    assert waiting["attempts"] == []
    assert waiting["next_attempt_at"] is not None
    attempt(api, Outcome.REFUSED, 500)
    answer = api.client.get("/v1/deliveries")
    (dead,) = answer.json()["data"]
    assert dead["status"] == "dead"
    assert dead["next_attempt_at"] is None
    assert (dead["job_id"], dead["type"]) == (job_id, "job.canceled")
    assert dead["host"] == "hooks.example.com:443"
    (tried,) = dead["attempts"]
    assert (tried["outcome"], tried["status_code"], tried["duration_s"]) == ("refused", 500, 1.5)
    assert "secret-canary" not in answer.text


def test_deliveries_come_newest_first_by_page_and_filter(api: Api) -> None:
    ids = [cancel(api) for _ in range(5)]
    seen, cursor = [], None
    while True:
        query = {"limit": "2"} | ({} if cursor is None else {"cursor": cursor})
        page = api.client.get("/v1/deliveries", params=query).json()
        seen += [delivery["job_id"] for delivery in page["data"]]
        cursor = page["next_cursor"]
        assert page["has_more"] == (cursor is not None)
        if cursor is None:
            break
    assert seen == ids[::-1]
    assert [d["job_id"] for d in deliveries(api, job_id=ids[2])] == [ids[2]]
    assert deliveries(api, status="dead") == []
    assert len(deliveries(api, status="pending")) == 5


@pytest.mark.parametrize("gone", [False, True])
def test_redeliver_begins_another_round_under_the_same_id(api: Api, gone: bool) -> None:
    cancel(api)
    attempt(api, Outcome.GONE if gone else Outcome.ACCEPTED, 410 if gone else 204)
    (before,) = deliveries(api)
    assert before["status"] == ("dead" if gone else "delivered")
    answer = api.client.post(f"/v1/deliveries/{before['id']}/redeliver")
    assert answer.status_code == 202
    assert answer.json()["status"] == "pending"
    assert answer.json()["event_id"] == before["event_id"]
    attempt(api, Outcome.ACCEPTED, 204)
    (after,) = deliveries(api)
    assert after["status"] == "delivered"
    assert [tried["attempt"] for tried in after["attempts"]] == [1, 2]
    # A receiver that was gone is back for later events too.
    cancel(api)
    assert deliveries(api)[0]["status"] == "pending"


def test_an_attempt_under_way_does_not_undo_a_redelivery(api: Api) -> None:
    cancel(api)
    repository = DeliveryRepository(api.database)
    (first,) = repository.claim(limit=1, per_host=1, rooms={}, lease_s=60)
    (delivery,) = deliveries(api)
    api.client.post(f"/v1/deliveries/{delivery['id']}/redeliver")
    (second,) = repository.claim(limit=1, per_host=1, rooms={}, lease_s=60)
    assert (second.event_id, second.attempt, second.tries) == (first.event_id, 2, 1)
    late = Attempt(Outcome.REFUSED, 500, timedelta(0))
    assert repository.record(first, late, retry_in_s=None) is None
    assert deliveries(api)[0]["status"] == "pending"


def test_another_tenant_sees_and_sends_nothing(api: Api) -> None:
    cancel(api)
    (delivery,) = deliveries(api)
    stranger = api.new_client(tenant="another")
    assert stranger.get("/v1/deliveries").json()["data"] == []
    for wrong in (delivery["id"], "dlv_none", "%00"):
        answer = stranger.post(f"/v1/deliveries/{wrong}/redeliver")
        assert answer.status_code == 404
        assert answer.headers["Content-Type"] == "application/problem+json"


def test_deliveries_go_with_their_job(api: Api) -> None:
    job_id = cancel(api)
    with api.database.begin() as connection:
        connection.execute(sa.text("DELETE FROM jobs WHERE id = :id"), {"id": job_id})
    assert deliveries(api) == []


@pytest.mark.parametrize(
    "query", [{"status": "lost"}, {"job_id": "\0"}, {"limit": "0"}, {"state": "dead"}]
)
def test_a_query_that_cannot_be_is_refused(api: Api, query: dict[str, str]) -> None:
    assert api.client.get("/v1/deliveries", params=query).status_code == 422
