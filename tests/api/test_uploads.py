"""What may be uploaded, who may use it, and in which jobs."""

import hashlib
import json
import math
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.pictures import MAX_UPLOAD_BYTES
from shared.compatibility import DIFFUSION_SAMPLERS
from shared.db.jobs import JobRepository
from shared.db.uploads import UploadRepository, upload_id_of
from shared.storage import ObjectStore, upload_key
from shared.vocab import Sampler
from tests.api.test_refusals import check_problem
from tests.fixtures.api import Api
from tests.fixtures.pictures import picture


@pytest.fixture
def client(api: Api, real_store: ObjectStore) -> TestClient:
    """A client of an API whose store is there."""
    return api.new_client(store=real_store)


def upload(client: TestClient, data: bytes) -> Any:
    return client.post("/v1/uploads", files={"file": data})


def upload_id(api: Api, *, tenant: str = "tenant", sha256: str = "ab" * 32) -> str:
    """Note an upload whose bytes nobody will ask for."""
    repository = UploadRepository(api.database)
    reserved = repository.reserve(tenant, content_type="image/png", num_bytes=9, sha256=sha256)
    return repository.confirm(tenant, reserved).id


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_picture_is_stored_under_its_tenant_and_described(
    client: TestClient, real_store: ObjectStore, kind: str
) -> None:
    data = picture(kind)
    # What the caller says of it is not believed.
    answer = client.post("/v1/uploads", files={"file": ("../../a.svg", data, "image/svg+xml")})
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert body["id"].startswith("upl_")
    assert body["content_type"] == f"image/{kind}"
    assert (body["bytes"], body["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert real_store.get(upload_key("tenant", body["id"])) == data


def test_the_same_bytes_are_the_same_upload_and_anothers_are_not(
    api: Api, client: TestClient, real_store: ObjectStore
) -> None:
    first, again = upload(client, picture()), upload(client, picture())
    assert (again.status_code, again.json()) == (201, first.json())
    other = upload(api.new_client(tenant="other", store=real_store), picture())
    assert other.json()["id"] != first.json()["id"]
    assert other.json()["sha256"] == first.json()["sha256"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG",
        b"GIF89a" + bytes(20),
        b"RIFF\0\0\0\0WAVE" + bytes(20),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"BM" + bytes(60),
        b" " + picture(),
    ],
)
def test_what_does_not_begin_like_a_picture_is_refused(client: TestClient, data: bytes) -> None:
    check_problem(upload(client, data), status=415, code="unsupported_image")


def test_a_form_of_the_limit_is_taken_and_one_byte_more_is_not(client: TestClient) -> None:
    head, tail = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n',
        b"\r\n--b--",
    )
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    room = MAX_UPLOAD_BYTES - len(head) - len(tail)
    form = head + picture().ljust(room, b"\0") + tail
    assert client.post("/v1/uploads", content=form, headers=headers).status_code == 201
    form = head + picture().ljust(room + 1, b"\0") + tail
    answer = client.post("/v1/uploads", content=form, headers=headers)
    check_problem(answer, status=413, code="upload_too_large")


@pytest.mark.parametrize(
    "arguments",
    [
        {"files": {"picture": picture()}},
        {"files": [("file", picture()), ("file", picture())]},
        {"files": {"file": picture()}, "data": {"note": "x"}},
        {
            "content": b"--b\r\nnothing",
            "headers": {"Content-Type": "multipart/form-data; boundary=b"},
        },
        {"content": b"", "headers": {"Content-Type": "multipart/form-data"}},
        {
            "content": b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
            + picture(),
            "headers": {"Content-Type": "multipart/form-data; boundary=b"},
        },
    ],
)
def test_another_form_is_refused(client: TestClient, arguments: dict[str, Any]) -> None:
    answer = client.post("/v1/uploads", **arguments)
    check_problem(answer, status=400, code="malformed_form")


@pytest.mark.parametrize("media_type", ["text/json", "image/png", "", "multipart/mixed"])
def test_another_media_type_is_refused(client: TestClient, media_type: str) -> None:
    answer = client.post("/v1/uploads", content=picture(), headers={"Content-Type": media_type})
    check_problem(answer, status=415, code="unsupported_media_type")


def test_without_a_store_an_upload_is_refused_for_now(api: Api) -> None:
    # The store of these tests is one that nobody answers at.
    answer = upload(api.client, picture())
    check_problem(answer, status=503, code="service_unavailable")
    assert "Retry-After" in answer.headers
    upload_id = upload_id_of("tenant", hashlib.sha256(picture()).hexdigest())
    answer = api.client.post("/v1/jobs", json={"prompt": "p", "init_image": upload_id})
    check_problem(answer, status=422, code="unknown_upload")


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=200), st.sampled_from(["multipart/form-data; boundary=b", "text/plain"]))
def test_any_bytes_are_refused(client: TestClient, body: bytes, media_type: str) -> None:
    answer = client.post("/v1/uploads", content=body, headers={"Content-Type": media_type})
    assert answer.status_code in {400, 415}


def test_a_job_names_its_pictures_and_counts_what_is_left_of_its_steps(api: Api) -> None:
    image, mask = upload_id(api), upload_id(api, sha256="cd" * 32)
    job = api.submit(init_image=image, mask=mask, strength=0.5, steps=10, sampler="heun")
    shown = {name: job["request"][name] for name in ("init_image", "mask", "strength")}
    assert shown == {"init_image": image, "mask": mask, "strength": 0.5}
    # Heun looks twice at each of the five steps but the last.
    assert job["progress"]["iterations"] == 9
    size = job["request"]["width"] * job["request"]["height"]
    assert job["cost"]["megapixel_iterations"] == size * 9 / 1e6
    again = api.submit(**job["request"])
    assert again["request"] == job["request"]
    stored = JobRepository(api.database).get("tenant", job["id"]).request
    assert stored.init_image is not None
    assert stored.init_image.sha256 == "ab" * 32
    assert stored.recipe()["init_image"] == {"sha256": "ab" * 32}
    assert image not in str(stored.recipe())


def test_strength_has_a_default_with_a_picture_only(api: Api) -> None:
    assert api.submit(init_image=upload_id(api))["request"]["strength"] == 0.75
    request = api.submit()["request"]
    assert (request["strength"], request["init_image"], request["mask"]) == (None, None, None)


def test_an_upload_that_expires_while_a_job_is_resolved_is_refused_by_its_field(
    api: Api,
) -> None:
    image, mask = upload_id(api), upload_id(api, sha256="cd" * 32)
    new_job_id = api.services.new_job_id

    def expire_first() -> str:
        with api.database.begin() as connection:
            statement = sa.text("UPDATE uploads SET is_stored = false WHERE id = :id")
            connection.execute(statement, {"id": mask})
        return new_job_id()

    body = {"prompt": "p", "init_image": image, "mask": mask}
    answer = api.new_client(new_job_id=expire_first).post("/v1/jobs", json=body)
    problem = check_problem(answer, status=422, code="unknown_upload")
    assert [error["pointer"] for error in problem["errors"]] == ["#/mask"]
    assert api.count_jobs() == 0


@pytest.mark.parametrize("field", ["init_image", "mask"])
@pytest.mark.parametrize("owner", ["nobody", "other"])
def test_the_upload_of_another_is_as_good_as_none(api: Api, field: str, owner: str) -> None:
    mine = upload_id(api)
    theirs = "upl_0" if owner == "nobody" else upload_id(api, tenant=owner, sha256="ef" * 32)
    body = {"prompt": "p", "init_image": mine, field: theirs}
    problem = check_problem(
        api.client.post("/v1/jobs", json=body), status=422, code="unknown_upload"
    )
    assert problem["errors"][0]["pointer"] == f"#/{field}"
    assert api.count_jobs() == 0


@pytest.mark.parametrize(
    ("fields", "pointer", "says"),
    [
        ({"mask": "MASK"}, "#/mask", "send one too"),
        ({"strength": 0.5}, "#/strength", "only a job with an init_image"),
        ({"init_image": "IMAGE", "strength": 0}, "#/strength", "greater than 0"),
        ({"init_image": "IMAGE", "strength": 1.01}, "#/strength", "less than or equal to 1"),
        ({"init_image": "IMAGE", "strength": float("nan")}, "#/strength", "finite"),
        ({"init_image": 7}, "#/init_image", "valid string"),
        ({"init_image": "IMAGE", "sampler": "pndm"}, "#/sampler", "dpmpp_2m can, or a strength of"),
    ],
)
def test_what_makes_no_sense_together_is_refused(
    api: Api, fields: dict[str, Any], pointer: str, says: str
) -> None:
    ids = {"IMAGE": upload_id(api), "MASK": upload_id(api, sha256="cd" * 32)}
    body = {name: ids.get(value, value) for name, value in fields.items()}
    answer = api.client.post(
        "/v1/jobs",
        content=json.dumps({"prompt": "p"} | body),
        headers={"Content-Type": "application/json"},
    )
    problem = check_problem(answer, status=422, code="invalid_request")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert says in problem["errors"][0]["detail"]


@pytest.mark.parametrize("steps", [1, 3, 7, 49, 100, 1000])
def test_the_strength_that_a_refusal_names_is_enough(api: Api, steps: int) -> None:
    image = upload_id(api)
    body = {"prompt": "p", "init_image": image, "steps": steps, "sampler": "ddim"}
    answer = api.client.post("/v1/jobs", json=body | {"strength": 0.9 / steps})
    detail = check_problem(answer, status=422, code="invalid_request")["errors"][0]["detail"]
    least = float(detail.split("; ")[1].split()[0])
    assert api.submit(**body | {"strength": least})["progress"]["iterations"] >= 1
    assert math.isclose(least, 1 / steps, abs_tol=0.001)


@pytest.mark.parametrize("sampler", DIFFUSION_SAMPLERS)
def test_every_sampler_starts_from_a_picture_at_full_strength(api: Api, sampler: Sampler) -> None:
    fields = {"sampler": sampler, "steps": 6, "allow_undistilled": True}
    job = api.submit(init_image=upload_id(api), strength=1, **fields)
    assert job["progress"] == api.submit(**fields)["progress"]
