import sqlalchemy as sa

from api.admission import Admission
from shared.db.jobs import JobRepository
from tests.fixtures.api import Api

BODY = {"prompt": "p"}


def test_a_full_queue_refuses_before_anything_is_stored_until_jobs_have_ended(api: Api) -> None:
    admission = Admission(JobRepository(api.database), max_waiting=3)
    client = api.new_client(admission=admission)
    accepted = client.post("/v1/batches", json={"jobs": [BODY] * 2})
    assert accepted.status_code == 202, accepted.text
    # One too many together; one by one the first of them still fits.
    assert client.post("/v1/batches", json={"jobs": [BODY] * 2}).status_code == 503
    assert client.post("/v1/jobs", json=BODY).status_code == 202
    answer = client.post("/v1/jobs", json=BODY)
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
    assert answer.json()["type"].endswith("#temporary-reduced-capacity")
    assert 1 <= int(answer.headers["Retry-After"]) <= 120
    assert api.count_jobs() == 3
    admission.refresh()
    assert client.post("/v1/jobs", json=BODY).status_code == 503
    with api.database.begin() as connection:
        connection.execute(sa.text("DELETE FROM jobs WHERE batch_id IS NOT NULL"))
    admission.refresh()
    assert client.post("/v1/jobs", json=BODY).status_code == 202


def test_a_replay_is_not_counted(api: Api) -> None:
    client = api.new_client(admission=Admission(JobRepository(api.database), max_waiting=2))
    headers = {"Idempotency-Key": "k"}
    for _ in range(3):
        assert client.post("/v1/jobs", json=BODY, headers=headers).status_code == 202
    assert client.post("/v1/jobs", json=BODY).status_code == 202
    assert client.post("/v1/jobs", json=BODY).status_code == 503
