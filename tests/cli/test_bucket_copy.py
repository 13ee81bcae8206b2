import hashlib
from pathlib import Path

import boto3
import pytest

from cli.bucket_copy import Copied, load_bucket, place_of, save_bucket
from cli.standalone.servers import Servers
from shared.errors import ConfigurationError, StorageUnavailable
from shared.storage import ObjectStore
from shared.store_address import StoreAddress

FILES = {
    "results/job_1/1-a/0.png": b"picture",
    "uploads/tenant/up_1": b"upload",
    "checkpoints/job_2/1-b/7.safetensors": b"",
}


def store_of(servers: Servers, bucket: str) -> ObjectStore:
    keys = (servers.s3_access_key, servers.s3_secret_key)
    client = boto3.client(
        "s3",
        endpoint_url=servers.s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id=keys[0],
        aws_secret_access_key=keys[1],
    )
    client.create_bucket(Bucket=bucket)
    return ObjectStore(
        StoreAddress(
            endpoint=servers.s3_endpoint, bucket=bucket, access_key=keys[0], secret_key=keys[1]
        )
    )


def put(store: ObjectStore, key: str, data: bytes) -> None:
    store.put(key, data, content_type="image/png")


def test_a_bucket_goes_through_files_into_another(servers: Servers, tmp_path: Path) -> None:
    source, target = store_of(servers, "source"), store_of(servers, "target")
    for key, data in FILES.items():
        put(source, key, data)
    copied = Copied(3, sum(map(len, FILES.values())))
    assert save_bucket(source, tmp_path) == copied
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert found <= FILES.keys()
    # Once more: what is there already is no obstacle, unless it is something else.
    assert [load_bucket(target, tmp_path) for _ in range(2)] == [copied, copied]
    for key, data in FILES.items():
        assert hashlib.sha256(target.get(key)).digest() == hashlib.sha256(data).digest()
    (tmp_path / "uploads/tenant/up_1").write_bytes(b"something else")
    with pytest.raises(StorageUnavailable):
        load_bucket(target, tmp_path)


@pytest.mark.parametrize("key", ["uploads/../../x/y", "/etc/x", "a//b", "a/./b", "a/", ".."])
def test_a_key_that_would_lie_elsewhere_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigurationError, match="no path"):
        place_of(tmp_path, key)
