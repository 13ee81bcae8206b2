"""When a job may start at the earliest, as a client says it."""

from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from tests.fixtures.api import Api


def ahead(api: Api, **span: float) -> str:
    return (api.clock.now + timedelta(**span)).isoformat()


def test_a_job_waits_without_a_place_in_the_queue(api: Api) -> None:
    other = api.submit()
    job = api.submit(not_before=ahead(api, hours=1), priority=9)
    assert job["status"] == "queued"
    assert job["queue"]["position"] is None
    shown = datetime.fromisoformat(job["request"]["not_before"])
    assert shown == api.clock.now + timedelta(hours=1)
    assert job["request"]["not_before"].endswith("Z")
    assert api.client.get(other["links"]["self"]).json()["queue"]["position"] == 0
    assert api.client.get(job["links"]["self"]).json() == job


def test_it_is_canceled_meanwhile(api: Api) -> None:
    job = api.submit(not_before=ahead(api, hours=1))
    answer = api.client.post(job["links"]["cancel"])
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")


def test_a_time_that_has_passed_is_now(api: Api) -> None:
    job = api.submit(not_before="0001-01-01T00:00:00+01:00".replace("0001", "1999"))
    assert job["queue"]["position"] == 0
    assert job["request"]["not_before"] == "1998-12-31T23:00:00Z"
    assert api.submit()["request"]["not_before"] is None


@pytest.mark.parametrize("spelling", ["2001-01-01t00:00:00.5z", "2001-01-01T01:00:00.500000+01:00"])
def test_every_spelling_of_a_time_is_the_same_request(api: Api, spelling: str) -> None:
    headers = {"Idempotency-Key": "k"}
    body = {"prompt": "p", "not_before": "2001-01-01T00:00:00.5Z"}
    first = api.client.post("/v1/jobs", json=body, headers=headers)
    again = api.client.post("/v1/jobs", json=body | {"not_before": spelling}, headers=headers)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


def test_the_deadline_counts_from_the_time_to_wait_for(api: Api, database: sa.Engine) -> None:
    api.submit(not_before=ahead(api, days=30), deadline_s=2000)
    api.submit(not_before="1999-01-01T00:00:00Z", deadline_s=2000)
    left = sa.text("""
        SELECT deadline_at - greatest(created_at, (request->>'not_before')::timestamptz) FROM jobs
    """)
    with database.connect() as connection:
        assert connection.scalars(left).all() == [timedelta(seconds=2000)] * 2


def test_a_time_too_far_ahead_is_refused(api: Api) -> None:
    body = {"prompt": "p", "not_before": ahead(api, days=30, seconds=1)}
    answer = api.client.post("/v1/jobs", json=body)
    (problem,) = answer.json()["errors"]
    assert (answer.status_code, problem["pointer"]) == (422, "#/not_before")
    assert "at most 30 days ahead" in problem["detail"]
    assert api.count_jobs() == 0
