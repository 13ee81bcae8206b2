from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
import sqlalchemy as sa

from shared.catalog import Catalog
from shared.db.leases import Beat, LeaseRepository
from shared.db.presence import WorkerRepository
from shared.errors import ErrorCode
from shared.job import Artifact, Claim, Success
from tests.fixtures.api import CHOSEN_SEED, LINK_TTL_S, Api

MEMBERS = {
    "id", "status", "request", "preset", "progress", "queue", "attempt", "artifacts", "error",
    "execution", "cost", "created_at", "started_at", "finished_at", "metadata", "links", "retry_of",
    "batch",
}  # fmt: skip
REQUEST_MEMBERS = {
    "prompt", "negative_prompt", "class_label", "model", "preset", "sampler", "schedule", "steps",
    "guidance", "guidance_rescale", "seed", "width", "height", "duration_s", "num_outputs",
    "init_image", "mask", "strength", "adapters", "output_format", "determinism", "service_class",
    "priority", "deadline_s", "not_before", "webhook", "metadata", "allow_undistilled",
}  # fmt: skip


@pytest.fixture
def leases(database: sa.Engine) -> LeaseRepository:
    return LeaseRepository(database, lease_s=60)


def claim(leases: LeaseRepository, job_id: str) -> Claim:
    claimed = leases.claim(job_id, worker="worker-1")
    assert claimed is not None
    return claimed


def test_an_accepted_job_is_answered_stored_and_announced(api: Api) -> None:
    workers = WorkerRepository(api.database)
    workers.beat("w", device="cpu", queues=["demo.interactive"], slots=1)
    answer = api.client.post("/v1/jobs", json={"prompt": "a red star"})
    assert answer.status_code == 202
    job = answer.json()
    assert set(job) == MEMBERS
    assert set(job["request"]) == REQUEST_MEMBERS
    assert answer.headers["Location"] == job["links"]["self"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert job["status"] == "queued"
    assert job["queue"] == {"position": 0, "eta_s": 0.0, "unschedulable": None}
    assert job["created_at"].endswith("Z")
    assert [job[name] for name in ("error", "execution", "started_at", "finished_at")] == [None] * 4
    assert job["artifacts"] == []
    assert len(api.nudges) == api.count_jobs() == 1
    assert api.client.get(job["links"]["self"]).json() == job


def test_a_queued_job_says_that_nobody_serves_it(api: Api, leases: LeaseRepository) -> None:
    def ask() -> Any:
        return api.client.get(job["links"]["self"]).json()["queue"]

    workers = WorkerRepository(api.database)
    workers.beat("other", device="cpu", queues=["demo.batch", "another.interactive"], slots=1)
    job = api.submit()
    says = "no live worker serves demo; it waits for one until its deadline"
    assert job["queue"]["unschedulable"] == ask()["unschedulable"] == says
    workers.beat("w", device="cpu", queues=["demo.interactive"], slots=1)
    assert ask()["unschedulable"] is None
    with api.database.begin() as connection:
        connection.execute(sa.text("UPDATE workers SET heartbeat_at = now() - interval '61 s'"))
    assert ask()["unschedulable"] == says
    claim(leases, job["id"])
    assert ask() is None


def test_defaults_come_from_the_preset_the_model_and_the_seed_source(
    api: Api, catalog: Catalog
) -> None:
    spec = catalog.models["demo"]
    job = api.submit()
    assert job["preset"] == {"name": "balanced", "version": 1}
    defaults = {
        "preset": "balanced@1",
        "model": "demo",
        "sampler": "dpmpp_2m",
        "schedule": "native",
        "steps": 25,
        "guidance": spec.presets["balanced"].guidance,
        "seed": CHOSEN_SEED,
        "width": spec.width,
        "height": spec.height,
    }
    assert {name: job["request"][name] for name in defaults} == defaults
    assert job["progress"] == {"iteration": 0, "iterations": 25, "eta_s": None}
    megapixel_iterations = spec.width * spec.height * 25 / 1e6
    assert job["cost"] == {"megapixel_iterations": megapixel_iterations, "predicted_s": None}


def test_a_resolved_request_sent_again_makes_an_equal_job(api: Api) -> None:
    first = api.submit(
        preset="fast", sampler="euler", guidance=2, num_outputs=2, metadata={"a": "b"}, priority=9
    )
    second = api.submit(**first["request"])
    assert second["request"] == first["request"]
    assert second["metadata"] == {"a": "b"}
    assert second["id"] > first["id"]


def test_the_metadata_and_every_explicit_field_are_kept(api: Api) -> None:
    body = {
        "prompt": "ein Stern \N{GREEN HEART}",
        "negative_prompt": "blue",
        "sampler": "ddim",
        "schedule": "karras",
        "steps": 7,
        "guidance": 7,
        "guidance_rescale": 0.5,
        "seed": 2**53 - 1,
        "width": 128,
        "height": 32,
        "num_outputs": 8,
        "output_format": "webp",
        "allow_undistilled": True,
        "determinism": "exact",
        "service_class": "batch",
        "priority": 0,
        "deadline_s": 604_800,
        "metadata": {"k\N{SNOWMAN}": "v"},
    }
    request = api.submit(**body)["request"]
    assert {name: request[name] for name in body} == body


def test_a_running_job_shows_progress_and_when_it_may_end(
    api: Api, leases: LeaseRepository
) -> None:
    job = api.submit(steps=20)
    lease = claim(leases, job["id"]).lease
    leases.beat([Beat(lease.token, 5)])
    shown = api.client.get(job["links"]["self"]).json()
    api.clock.now = datetime.fromisoformat(shown["started_at"]) + timedelta(seconds=10)
    answer = api.client.get(job["links"]["self"])
    assert answer.headers["Retry-After"] == "1"
    shown = answer.json()
    assert (shown["status"], shown["attempt"], shown["queue"]) == ("running", 1, None)
    assert shown["progress"] == {"iteration": 5, "iterations": 20, "eta_s": 30.0}


def test_a_finished_job_shows_signed_links_and_how_it_ran(
    api: Api, leases: LeaseRepository
) -> None:
    job = api.submit(output_format="jpeg")
    lease = claim(leases, job["id"]).lease
    execution = {
        "worker": "worker-1",
        "device": "cpu",
        "determinism": "fast",
        "exact_rows": None,
        "mean_rows": 3.5,
        "resumed_at": None,
        "decoder_tiles": 1,
        "gains": None,
        "device_options": {},
        "versions": {"torch": "2.13.0"},
    }
    key = f"results/{job['id']}/1-{uuid4()}/0.jpeg"
    artifact = Artifact(0, key, "image/jpeg", 64, 64, 424_242, "ab" * 32, 123)
    assert leases.succeed(lease, Success((artifact,), iterations=25, execution=execution))
    answer = api.client.get(job["links"]["self"])
    shown = answer.json()
    assert "Retry-After" not in answer.headers
    assert shown["status"] == "succeeded"
    assert shown["execution"] == execution
    (shown_artifact,) = shown["artifacts"]
    url = urlsplit(shown_artifact.pop("url"))
    query = parse_qs(url.query)
    assert (url.netloc, url.path) == ("files.example.test", f"/latentq/{key}")
    assert query["X-Amz-Expires"] == [str(LINK_TTL_S)]
    assert query["response-content-disposition"] == [f'inline; filename="{job["id"]}-0.jpeg"']
    expires_at = datetime.fromisoformat(shown_artifact.pop("url_expires_at"))
    assert expires_at == api.clock.now + timedelta(seconds=LINK_TTL_S)
    assert shown_artifact == {
        "index": 0,
        "content_type": "image/jpeg",
        "width": 64,
        "height": 64,
        "duration_s": None,
        "sample_rate": None,
        "seed": 424_242,
        "sha256": "ab" * 32,
        "bytes": 123,
        "thumbnail_url": None,
    }


def test_a_failed_job_says_why(api: Api, leases: LeaseRepository) -> None:
    job = api.submit()
    lease = claim(leases, job["id"]).lease
    leases.fail(lease, ErrorCode.NON_FINITE, "the model returned numbers that are not finite")
    shown = api.client.get(job["links"]["self"]).json()
    assert shown["status"] == "failed"
    assert shown["error"] == {
        "code": "non_finite",
        "message": "the model returned numbers that are not finite",
    }


def test_a_queued_job_is_canceled_at_once_and_again(api: Api) -> None:
    job = api.submit()
    for _ in range(2):
        answer = api.client.post(job["links"]["cancel"])
        assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    assert api.canceled == []


def test_a_running_job_is_asked_to_stop(api: Api, leases: LeaseRepository) -> None:
    job = api.submit()
    claim(leases, job["id"])
    answer = api.client.post(job["links"]["cancel"])
    assert (answer.status_code, answer.json()["status"]) == (202, "running")
    assert api.canceled == [job["id"]]


def test_a_finished_job_cannot_be_canceled(api: Api, leases: LeaseRepository) -> None:
    job = api.submit()
    lease = claim(leases, job["id"]).lease
    leases.fail(lease, ErrorCode.INTERNAL, "message")
    answer = api.client.post(job["links"]["cancel"])
    assert (answer.status_code, answer.json()["code"]) == (409, "job_already_finished")


def test_a_finished_job_is_deleted_once(api: Api) -> None:
    job = api.submit()
    path = job["links"]["self"]
    refused = api.client.delete(path)
    assert (refused.status_code, refused.json()["code"]) == (409, "job_not_finished")
    assert "cancel it first" in refused.json()["detail"]
    api.client.post(job["links"]["cancel"])
    deleted = api.client.delete(path)
    assert (deleted.status_code, deleted.content) == (204, b"")
    for again in (api.client.delete(path), api.client.get(path)):
        assert (again.status_code, again.json()["code"]) == (404, "not_found")
    assert api.client.get("/v1/jobs").json()["data"] == []


def test_tenants_see_nothing_of_each_other(api: Api) -> None:
    mine = api.submit()
    other = api.new_client(tenant="other")
    for method, path in (
        ("GET", mine["links"]["self"]),
        ("POST", mine["links"]["cancel"]),
        ("DELETE", mine["links"]["self"]),
        ("GET", "/v1/jobs/job_0"),
        ("GET", "/v1/jobs/%00"),
        ("DELETE", "/v1/jobs/%00"),
    ):
        answer = other.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert other.get("/v1/jobs").json()["data"] == []
    assert api.client.get(mine["links"]["self"]).json()["status"] == "queued"


def test_the_same_key_and_body_answer_the_same_job(api: Api) -> None:
    headers = {"Idempotency-Key": '"a \\"key\\""'}
    first = api.client.post("/v1/jobs", json={"prompt": "p", "guidance": 7}, headers=headers)
    second = api.client.post("/v1/jobs", json={"guidance": 7.0, "prompt": "p"}, headers=headers)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.headers["Location"] == first.headers["Location"]
    assert len(api.nudges) == api.count_jobs() == 1


def test_quoted_and_bare_spell_the_same_key(api: Api) -> None:
    answers = [
        api.client.post("/v1/jobs", json={"prompt": "p"}, headers={"Idempotency-Key": key})
        for key in ("k-1", '"k-1"')
    ]
    assert answers[0].json()["id"] == answers[1].json()["id"]


def test_a_key_with_another_body_is_refused(api: Api) -> None:
    headers = {"Idempotency-Key": "k"}
    api.client.post("/v1/jobs", json={"prompt": "p"}, headers=headers)
    answer = api.client.post("/v1/jobs", json={"prompt": "q"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert api.count_jobs() == 1


def test_tenants_do_not_share_keys(api: Api) -> None:
    headers = {"Idempotency-Key": "k"}
    mine = api.client.post("/v1/jobs", json={"prompt": "p"}, headers=headers)
    other = api.new_client(tenant="other").post("/v1/jobs", json={"prompt": "q"}, headers=headers)
    assert (mine.status_code, other.status_code) == (202, 202)
    assert mine.json()["id"] != other.json()["id"]


def test_equal_posts_at_once_make_one_job(api: Api) -> None:
    def post(_: int) -> Any:
        return api.client.post("/v1/jobs", json={"prompt": "p"}, headers={"Idempotency-Key": "k"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 7
    assert len(api.nudges) == api.count_jobs() == 1


@pytest.mark.parametrize(
    "key", ["", '""', "x" * 256, "a\tb", "caf\u00e9", '"open', '"a"b"', '"a\\n"']
)
def test_a_malformed_key_is_refused(api: Api, key: str) -> None:
    raw = [(b"Idempotency-Key", key.encode("latin-1"))]
    answer = api.client.post("/v1/jobs", json={"prompt": "p"}, headers=raw)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_idempotency_key")
    assert api.count_jobs() == 0


def test_two_keys_are_refused(api: Api) -> None:
    raw = [(b"Idempotency-Key", b"a"), (b"Idempotency-Key", b"a")]
    answer = api.client.post("/v1/jobs", json={"prompt": "p"}, headers=raw)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_idempotency_key")


def test_the_longest_key_is_accepted(api: Api) -> None:
    headers = {"Idempotency-Key": "~" * 255}
    answer = api.client.post("/v1/jobs", json={"prompt": "p"}, headers=headers)
    assert answer.status_code == 202


def test_created_times_are_the_databases(api: Api) -> None:
    api.clock.now = datetime(2000, 1, 1, tzinfo=UTC)
    assert datetime.fromisoformat(api.submit()["created_at"]).year > 2020
