"""Which URLs an address means, as botocore builds them; no store is asked."""

from pathlib import Path

import httpx
import pytest

from shared.errors import ConfigurationError
from shared.settings import StorageSettings
from shared.storage import ObjectStore
from shared.store_address import Addressing, StoreAddress

KEY = "results/job_1/0.png"
KEYS = {"LATENTQ_S3_ACCESS_KEY": "access", "LATENTQ_S3_SECRET_KEY": "secret"}


def link(**address: object) -> httpx.URL:
    """Sign a link to an object of the bucket `pictures`."""
    store = ObjectStore(
        StoreAddress(bucket="pictures", access_key="access", secret_key="secret", **address)
    )
    url = httpx.URL(store.presign(KEY, filename="0.png", content_type="image/png", ttl_s=60))
    form, _ = store.presign_post(KEY, content_type="image/png", num_bytes=1, ttl_s=60)
    # Both lead to the same bucket.
    assert str(url.copy_with(query=None)) == form.rstrip("/") + f"/{KEY}"
    return url


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ({"endpoint": "http://s3.test:8333"}, f"http://s3.test:8333/pictures/{KEY}"),
        (
            {"endpoint": "https://s3.test", "addressing": Addressing.VIRTUAL},
            f"https://pictures.s3.test/{KEY}",
        ),
        (
            {"endpoint": "http://inside:8333", "public_endpoint": "https://files.example.com"},
            f"https://files.example.com/pictures/{KEY}",
        ),
        (
            {
                "endpoint": "http://inside:8333",
                "public_endpoint": "https://files.example.com",
                "addressing": Addressing.VIRTUAL,
            },
            f"https://pictures.files.example.com/{KEY}",
        ),
        (
            {"region": "eu-central-1"},
            f"https://pictures.s3.eu-central-1.amazonaws.com/{KEY}",
        ),
        ({"region": "us-east-1"}, f"https://pictures.s3.amazonaws.com/{KEY}"),
        (
            {"region": "eu-central-1", "addressing": Addressing.PATH},
            f"https://s3.eu-central-1.amazonaws.com/pictures/{KEY}",
        ),
    ],
)
def test_links_name_the_bucket_where_the_address_says(
    address: dict[str, object], expected: str
) -> None:
    url = link(**address)
    assert str(url.copy_with(query=None)) == expected
    assert f"/{address.get('region', 'us-east-1')}/s3/" in url.params["X-Amz-Credential"]


def read(monkeypatch: pytest.MonkeyPatch, **variables: str) -> StorageSettings:
    for name in StorageSettings.model_fields:
        monkeypatch.delenv(f"LATENTQ_{name.upper()}", raising=False)
    for name, value in (KEYS | variables).items():
        monkeypatch.setenv(name, value)
    return StorageSettings.read()


def test_a_forgotten_endpoint_is_not_taken_for_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"^set LATENTQ_S3_ENDPOINT; for AWS's own S3"):
        read(monkeypatch)


def test_a_region_alone_is_that_of_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    address = read(monkeypatch, LATENTQ_S3_REGION="eu-central-1").store
    assert (address.endpoint, address.region) == (None, "eu-central-1")


def test_an_address_never_shows_its_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    address = read(monkeypatch, LATENTQ_S3_ENDPOINT="http://s3.test").store
    assert address.secret_key == "secret"
    assert "secret'" not in repr(address)


@pytest.mark.parametrize(
    ("name", "value"), [("S3_ADDRESSING", "dns"), ("S3_CA_BUNDLE", "/nowhere/ca.pem")]
)
def test_what_an_address_cannot_be_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"^LATENTQ_{name}: "):
        read(monkeypatch, LATENTQ_S3_ENDPOINT="http://s3.test", **{f"LATENTQ_{name}": value})
