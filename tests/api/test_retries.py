from collections.abc import Callable

import pytest

from shared.db.leases import LeaseRepository
from shared.db.rescue import RescueRepository
from shared.errors import ErrorCode
from shared.job import Artifact, Claim, Success
from tests.fixtures.api import Api

PICTURE = Artifact(0, "results/x/0.png", "image/png", 64, 64, 7, "ab" * 32, 100)
END: dict[str, Callable[[LeaseRepository, Claim], bool]] = {
    "failed": lambda leases, claim: leases.fail(claim.lease, ErrorCode.INTERNAL, "broken"),
    "canceled": lambda leases, claim: leases.cancel(claim.lease),
    "succeeded": lambda leases, claim: leases.succeed(claim.lease, Success((PICTURE,), 1, {})),
}


def claim(api: Api, job_id: str) -> tuple[LeaseRepository, Claim]:
    leases = LeaseRepository(api.database, lease_s=60)
    claimed = leases.claim(job_id, worker="w")
    assert claimed is not None
    return leases, claimed


def end(api: Api, job_id: str, status: str) -> None:
    assert END[status](*claim(api, job_id))


@pytest.mark.parametrize("status", ["failed", "canceled"])
def test_a_retry_is_a_new_job_with_the_same_request(api: Api, status: str) -> None:
    old = api.submit(preset="fast", metadata={"order": "1"}, deadline_s=60)
    end(api, old["id"], status)
    answer = api.client.post(f"/v1/jobs/{old['id']}/retry")
    assert answer.status_code == 202, answer.text
    new = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{new['id']}"
    assert new["id"] != old["id"]
    assert (new["status"], new["attempt"], new["retry_of"]) == ("queued", 0, old["id"])
    for member in ("request", "preset", "metadata"):
        assert new[member] == old[member]
    again = api.client.get(f"/v1/jobs/{old['id']}").json()
    assert (again["status"], again["retry_of"]) == (status, None)
    assert len(api.nudges) == 2


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("queued", "job_not_finished"),
        ("running", "job_not_finished"),
        ("succeeded", "job_already_finished"),
    ],
)
def test_a_job_that_may_succeed_or_has_is_not_retried(api: Api, status: str, code: str) -> None:
    job_id = api.submit()["id"]
    if status == "running":
        claim(api, job_id)
    elif status == "succeeded":
        end(api, job_id, status)
    answer = api.client.post(f"/v1/jobs/{job_id}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, code)
    assert api.count_jobs() == 1


def test_the_same_key_retries_once_and_fits_no_other_call(api: Api) -> None:
    first, second = api.submit()["id"], api.submit()["id"]
    for job_id in (first, second):
        assert api.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
    headers = {"Idempotency-Key": '"k"'}
    answers = [api.client.post(f"/v1/jobs/{first}/retry", headers=headers) for _ in range(2)]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert [answer.headers.get("Idempotent-Replayed") for answer in answers] == [None, "true"]
    other = api.client.post(f"/v1/jobs/{second}/retry", headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    submitted = api.client.post("/v1/jobs", json={"prompt": "a"}, headers=headers)
    assert submitted.json()["code"] == "idempotency_key_reused"
    assert api.count_jobs() == 3


@pytest.mark.parametrize(("method", "route"), [("POST", "retry"), ("GET", "attempts")])
def test_the_jobs_of_others_are_not_there(api: Api, method: str, route: str) -> None:
    job_id = api.submit()["id"]
    stranger = api.new_client(tenant="stranger")
    for client, wanted in ((stranger, job_id), (api.client, "job_x"), (api.client, "a%00b")):
        answer = client.request(method, f"/v1/jobs/{wanted}/{route}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_every_run_of_a_job_is_told(api: Api) -> None:
    job_id = api.submit(steps=5)["id"]
    path = f"/v1/jobs/{job_id}/attempts"
    assert api.client.get(path).json() == {"data": []}
    leases, first = claim(api, job_id)
    leases.abandon([first.lease], reason="stalled")
    RescueRepository(api.database).take_back_expired_leases()
    claim(api, job_id)
    lost, running = api.client.get(path).json()["data"]
    assert (lost["attempt"], lost["worker"], lost["outcome"]) == (1, "w", "lost")
    assert (lost["exit_reason"], lost["alone"], lost["iteration"]) == ("stalled", False, 0)
    assert lost["ended_at"] is not None
    assert (running["attempt"], running["outcome"], running["ended_at"]) == (2, None, None)
    assert running["iterations"] >= 5
