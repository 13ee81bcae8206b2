"""Outputs by their own address."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient

from shared.db.leases import LeaseRepository
from shared.job import Artifact, Success
from tests.api.test_refusals import check_problem
from tests.fixtures.api import LINK_TTL_S, Api

EXECUTION: dict[str, Any] = {
    "worker": "w", "device": "cpu", "determinism": "fast", "exact_rows": None, "mean_rows": 2.0,
    "resumed_at": None, "versions": {},
}  # fmt: skip


def finish(api: Api, *, num_outputs: int = 1) -> str:
    job_id: str = api.submit(num_outputs=num_outputs)["id"]
    leases = LeaseRepository(api.database, lease_s=60)
    claim = leases.claim(job_id, worker="w")
    assert claim is not None
    artifacts = tuple(
        Artifact(index, f"results/x/{index}.png", "image/png", 64, 64, 7, "ab" * 32, 100)
        for index in range(num_outputs)
    )
    assert leases.succeed(claim.lease, Success(artifacts, 4, EXECUTION))
    return job_id


def fetch(client: TestClient, job_id: str, index: int | str, **query: str) -> Any:
    path = f"/v1/jobs/{job_id}/artifacts/{index}"
    return client.get(path, params=query, follow_redirects=False)


@pytest.mark.parametrize("download", ["true", "false", None])
def test_an_output_is_elsewhere_by_a_fresh_link(api: Api, download: str | None) -> None:
    job_id = finish(api, num_outputs=2)
    answer = fetch(api.client, job_id, 1, **({} if download is None else {"download": download}))
    assert (answer.status_code, answer.content) == (303, b"")
    assert answer.headers["Cache-Control"] == "private, no-cache"
    link = urlsplit(answer.headers["Location"])
    assert (link.netloc, link.path) == ("files.example.test", "/latentq/results/x/1.png")
    query = parse_qs(link.query)
    assert query["X-Amz-Expires"] == [str(LINK_TTL_S)]
    kind = "attachment" if download == "true" else "inline"
    assert query["response-content-disposition"] == [f'{kind}; filename="{job_id}-1.png"']
    assert query["response-content-type"] == ["image/png"]


def test_there_is_none_before_the_end_and_none_besides(api: Api) -> None:
    job_id = finish(api)
    for index in (1, 10**30):
        check_problem(fetch(api.client, job_id, index), status=404, code="not_found")
    for wrong in ("-1", "x"):
        check_problem(fetch(api.client, job_id, wrong), status=422, code="invalid_request")
    check_problem(
        fetch(api.client, job_id, 0, download="perhaps"), status=422, code="invalid_request"
    )
    waiting = api.submit()["id"]
    check_problem(fetch(api.client, waiting, 0), status=409, code="job_not_finished")
    api.client.post(f"/v1/jobs/{waiting}/cancel")
    check_problem(fetch(api.client, waiting, 0), status=404, code="not_found")
    for wrong in ("job_none", "%00"):
        check_problem(fetch(api.client, wrong, 0), status=404, code="not_found")


def test_another_tenant_finds_nothing(api: Api) -> None:
    job_id = finish(api)
    answer = fetch(api.new_client(tenant="another"), job_id, 0)
    check_problem(answer, status=404, code="not_found")
