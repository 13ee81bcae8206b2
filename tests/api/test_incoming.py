"""Files that clients bring to the store themselves, against the real one."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.pictures import MAX_UPLOAD_BYTES
from shared.db.incoming import LINK_TTL_S
from shared.db.uploads import upload_id_of
from shared.errors import NotFound
from shared.storage import ObjectStore, incoming_key, upload_key
from tests.api.test_refusals import check_problem
from tests.api.test_uploads import client, upload
from tests.fixtures.api import Api
from tests.fixtures.pictures import picture

__all__ = ["client"]
PATH = "/v1/uploads"


def announce(client: TestClient, data: bytes, **changes: Any) -> dict[str, Any]:
    body = {"content_type": "image/png", "bytes": len(data)} | changes
    answer = client.post(PATH, json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    offer: dict[str, Any] = answer.json()
    return offer


def send(offer: dict[str, Any], data: bytes, **changes: str) -> int:
    fields = offer["fields"] | changes
    return httpx.post(offer["url"], data=fields, files={"file": data}).status_code


def complete(client: TestClient, offer: dict[str, Any]) -> Any:
    return client.post(f"{PATH}/{offer['id']}/complete")


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("is_hashed", [True, False])
def test_a_file_that_was_sent_to_the_store_is_an_upload_named_by_its_content(
    api: Api, client: TestClient, real_store: ObjectStore, kind: str, is_hashed: bool
) -> None:
    data = picture(kind)
    sha256 = hashlib.sha256(data).hexdigest()
    offer = announce(
        client, data, content_type=f"image/{kind}", **({"sha256": sha256} if is_hashed else {})
    )
    assert send(offer, data) == 204
    answer = complete(client, offer)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["id"] == upload_id_of("tenant", sha256)
    assert (body["content_type"], body["bytes"], body["sha256"]) == (
        f"image/{kind}", len(data), sha256,
    )  # fmt: skip
    assert real_store.get(upload_key("tenant", body["id"])) == data
    with pytest.raises(NotFound):
        real_store.get(incoming_key("tenant", offer["id"]))
    assert complete(client, offer).json() == body
    assert upload(client, data).json() == body
    assert api.submit(init_image=body["id"])["request"]["init_image"] == body["id"]


def test_the_store_takes_what_was_announced_and_nothing_else(client: TestClient) -> None:
    data = picture()
    offer = announce(client, data)
    assert send(offer, data + b"x") == 400
    assert send(offer, data[:-1]) == 400
    assert send(offer, data, **{"Content-Type": "text/html"}) == 403
    assert send(offer, data, key=upload_key("tenant", "upl_0")) == 403
    assert send(offer, data, policy="e30=") == 403
    check_problem(complete(client, offer), status=409, code="upload_incomplete")
    assert send(offer, data) == 204
    assert complete(client, offer).status_code == 200


def test_what_comes_is_looked_at_whatever_was_announced(client: TestClient) -> None:
    data = picture()
    wrong = [
        (picture("jpeg"), {"content_type": "image/png"}, 422, "upload_mismatch"),
        (data, {"sha256": "ab" * 32}, 422, "upload_mismatch"),
        (b"<svg/>" + bytes(20), {}, 415, "unsupported_image"),
    ]
    for sent, changes, status, code in wrong:
        offer = announce(client, sent, **changes)
        assert send(offer, sent) == 204
        check_problem(complete(client, offer), status=status, code=code)
    # The right one may follow as long as the link works.
    offer = announce(client, data, sha256=hashlib.sha256(data).hexdigest())
    assert send(offer, data[::-1]) == 204
    assert complete(client, offer).status_code == 415
    assert send(offer, data) == 204
    assert complete(client, offer).status_code == 200


def test_an_object_of_another_length_is_refused_even_if_the_store_took_it(
    client: TestClient, real_store: ObjectStore
) -> None:
    data = picture()
    for sent in (data + b"x", data[:-1]):
        offer = announce(client, data)
        real_store.put(incoming_key("tenant", offer["id"]), sent, content_type="image/png")
        check_problem(complete(client, offer), status=422, code="upload_mismatch")


def test_all_who_complete_at_once_get_the_same_upload(client: TestClient) -> None:
    with ThreadPoolExecutor(4) as pool:
        for number in range(2):
            data = picture() + bytes([number])
            offer = announce(client, data)
            send(offer, data)
            barrier = threading.Barrier(4)

            def race(offer: dict[str, Any] = offer, barrier: threading.Barrier = barrier) -> Any:
                barrier.wait()
                return complete(client, offer)

            answers = [future.result() for future in [pool.submit(race) for _ in range(4)]]
            assert {answer.status_code for answer in answers} == {200}
            assert len({answer.json()["id"] for answer in answers}) == 1


def test_a_link_that_is_used_again_changes_no_upload(
    client: TestClient, real_store: ObjectStore
) -> None:
    data = picture()
    offer = announce(client, data)
    send(offer, data)
    body = complete(client, offer).json()
    other = data[:-12] + bytes(12)
    assert send(offer, other) == 204
    assert complete(client, offer).json() == body
    assert real_store.get(upload_key("tenant", body["id"])) == data


def test_a_completed_one_that_is_kept_no_longer_is_not_found(api: Api, client: TestClient) -> None:
    data = picture()
    offer = announce(client, data)
    send(offer, data)
    complete(client, offer)
    with api.database.begin() as connection:
        connection.execute(sa.text("UPDATE uploads SET is_stored = false"))
    check_problem(complete(client, offer), status=404, code="not_found")


def test_another_tenant_completes_nothing(
    api: Api, client: TestClient, real_store: ObjectStore
) -> None:
    data = picture()
    offer = announce(client, data)
    send(offer, data)
    stranger = api.new_client(tenant="other", store=real_store)
    for wrong in (offer["id"], "inc_none", "%00"):
        answer = stranger.post(f"{PATH}/{wrong}/complete")
        check_problem(answer, status=404, code="not_found")
    assert complete(client, offer).status_code == 200


def test_a_link_ends(api: Api, client: TestClient) -> None:
    offer = announce(client, picture())
    with api.database.connect() as connection:
        ttl = connection.scalar(sa.text("SELECT max(expires_at) - now() FROM incoming_uploads"))
    assert LINK_TTL_S - 60 < ttl.total_seconds() <= LINK_TTL_S
    assert offer["expires_at"].endswith("Z")


def test_without_a_store_completing_is_refused_for_now(api: Api) -> None:
    # Links are signed without asking anybody.
    offer = announce(api.client, picture())
    assert offer["url"] == "https://files.example.test/latentq"
    check_problem(complete(api.client, offer), status=503, code="service_unavailable")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ([], "#"),
        ({"content_type": "image/png"}, "#/bytes"),
        ({"content_type": "image/gif", "bytes": 9}, "#/content_type"),
        ({"content_type": "image/png", "bytes": 0}, "#/bytes"),
        ({"content_type": "image/png", "bytes": MAX_UPLOAD_BYTES + 1}, "#/bytes"),
        ({"content_type": "image/png", "bytes": "9"}, "#/bytes"),
        ({"content_type": "image/png", "bytes": 9, "sha256": "AB" * 32}, "#/sha256"),
        ({"content_type": "image/png", "bytes": 9, "key": "canary"}, "#/key"),
    ],
)
def test_what_cannot_come_is_refused_by_its_field(api: Api, body: Any, pointer: str) -> None:
    answer = api.client.post(PATH, json=body)
    check_problem(answer, status=422, code="invalid_request")
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert "canary" not in answer.text


@pytest.mark.parametrize("content", [b"", b"{", b'{"bytes": 1, "bytes": 2}', b"\xff"])
def test_what_is_no_json_is_refused(api: Api, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = api.client.post(PATH, content=content, headers=headers)
    check_problem(answer, status=400, code="malformed_body")
