import hashlib
import tempfile
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import pytest

from cli.standalone.servers import Servers
from shared.errors import NotFound, ServiceUnavailable, StorageUnavailable
from shared.storage import (
    ObjectStore,
    artifact_key,
    checkpoint_key,
    parse_attempt_key,
    parse_checkpoint_key,
)
from shared.store_address import StoreAddress
from tests.fixtures.stack import free_port


def connect(
    servers: Servers, *, endpoint: str | None = None, bucket: str | None = None
) -> ObjectStore:
    return ObjectStore(
        StoreAddress(
            endpoint=endpoint or servers.s3_endpoint,
            bucket=bucket or servers.s3_bucket,
            access_key=servers.s3_access_key,
            secret_key=servers.s3_secret_key,
        )
    )


@pytest.fixture
def store(servers: Servers) -> ObjectStore:
    return connect(servers)


@pytest.fixture
def key() -> str:
    return artifact_key("job_1", attempt=1, token=uuid4(), index=0, extension="png")


def test_a_stored_object_reads_back_and_its_link_needs_no_key(store: ObjectStore, key: str) -> None:
    store.put(key, b"picture", content_type="image/png")
    assert store.get(key) == b"picture"
    url = store.presign(key, filename="job_1-0.png", content_type="image/png", ttl_s=60)
    answer = httpx.get(url)
    assert answer.content == b"picture"
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"] == 'inline; filename="job_1-0.png"'


def test_a_file_is_stored_as_its_bytes_are(store: ObjectStore, key: str) -> None:
    data = bytes(range(256)) * 20_000
    with tempfile.SpooledTemporaryFile(max_size=1000) as file:
        file.write(data)
        file.seek(0)
        digest = hashlib.sha256(data).hexdigest()
        store.put_file(key, file, sha256=digest, content_type="image/png")
    assert store.get(key) == data
    store.put(key, data, content_type="image/png")


def test_an_object_that_is_not_there_is_told_from_a_store_that_is_not(
    store: ObjectStore, key: str
) -> None:
    with pytest.raises(NotFound):
        store.get(key)


def test_an_object_is_written_once(store: ObjectStore, key: str) -> None:
    store.put(key, b"first", content_type="image/png")
    with pytest.raises(StorageUnavailable):
        store.put(key, b"second", content_type="image/png")
    assert store.get(key) == b"first"


def test_the_same_object_again_is_a_reply_that_was_lost(store: ObjectStore, key: str) -> None:
    store.put(key, b"same", content_type="image/png")
    store.put(key, b"same", content_type="image/png")
    assert store.get(key) == b"same"


def test_without_a_signature_nothing_is_shown(
    store: ObjectStore, servers: Servers, key: str
) -> None:
    store.put(key, b"picture", content_type="image/png")
    answer = httpx.get(f"{servers.s3_endpoint}/{servers.s3_bucket}/{key}")
    assert answer.status_code == 403


def test_what_begins_alike_is_listed_and_deleted_page_by_page(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.storage.PAGE_SIZE", 2)
    before = datetime.now(UTC) - timedelta(minutes=1)
    mine, other = f"results/job_{uuid4().hex}", f"results/job_{uuid4().hex}"
    keys = [f"{mine}/{attempt}-{uuid4()}/{n}.png" for attempt in (1, 2) for n in range(3)]
    for key in [*keys, f"{mine}x/0.png", f"{other}/0.png"]:
        store.put(key, b"picture", content_type="image/png")
    found, place = store.list_page(f"{mine}/")
    assert len(found) == 2
    while place is not None:
        page, place = store.list_page(f"{mine}/", place=place)
        found += page
    assert sorted(entry.key for entry in found) == sorted(keys)
    assert [entry.key for entry in store.list_all(f"{mine}/")] == sorted(keys)
    assert all(before < entry.modified_at < before + timedelta(minutes=2) for entry in found)
    store.delete_prefix(f"{mine}/")
    store.delete_prefix(f"{mine}/")
    assert store.list_page(f"{mine}/") == ([], None)
    for kept in (f"{mine}x/0.png", f"{other}/0.png"):
        assert store.get(kept) == b"picture"


def test_a_key_tells_its_job_and_lease_and_others_tell_none() -> None:
    token = uuid4()
    key = artifact_key("job_1", attempt=12, token=token, index=0, extension="png")
    assert parse_attempt_key(key) == ("job_1", token)
    assert parse_checkpoint_key(key) is None
    state = checkpoint_key("job_1", attempt=12, token=token, iteration=340)
    assert parse_attempt_key(state) == ("job_1", token)
    assert parse_checkpoint_key(state) == (12, 340)
    assert parse_checkpoint_key(state.replace("340", "late")) is None
    for other in (
        f"uploads/{key}",
        f"results/job_1/{token}/0.png",
        f"results/job_1/1-{token}/",
        f"results/job_1/1-{str(token)[:-1]}/0.png",
        f"results/a/job_1/1-{token}/0.png",
    ):
        assert parse_attempt_key(other) is None


def test_an_object_that_is_not_there_counts_as_deleted(store: ObjectStore, key: str) -> None:
    store.put(key, b"picture", content_type="image/png")
    store.delete([key, f"{key}.gone"])
    store.delete([key])
    with pytest.raises(NotFound):
        store.get(key)


def test_a_store_that_is_away_is_an_error(servers: Servers, key: str) -> None:
    away = connect(servers, endpoint=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StorageUnavailable):
        away.put(key, b"x", content_type="image/png")
    with pytest.raises(StorageUnavailable):
        away.get(key)
    with pytest.raises(StorageUnavailable):
        away.delete([key])
    with pytest.raises(StorageUnavailable):
        away.delete_prefix("results/")
    with pytest.raises(ServiceUnavailable):
        away.ping()


def test_a_bucket_that_is_not_there_shows_when_pinged(servers: Servers, store: ObjectStore) -> None:
    store.ping()
    with pytest.raises(ServiceUnavailable, match="no bucket nothing-here"):
        connect(servers, bucket="nothing-here").ping()
