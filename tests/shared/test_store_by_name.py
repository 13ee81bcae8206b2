"""A SeaweedFS that speaks TLS itself and knows its domain: both kinds of URLs lead to a bucket."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from cli.standalone import seaweedfs
from cli.standalone.child import Child
from cli.standalone.state import DataDir
from shared.errors import NotFound, ServiceUnavailable
from shared.storage import ObjectStore
from shared.store_address import Addressing, StoreAddress
from tests.fixtures.tls import HOST, VIRTUAL_HOST, Certificates


@pytest.fixture(scope="module")
def address(server_folder: Path, certificates: Certificates) -> Iterator[StoreAddress]:
    """The store, by the path."""
    with DataDir(server_folder / "named-store") as data_dir:
        ports = data_dir.ports()
        found = StoreAddress(
            endpoint=f"https://{HOST}:{ports['s3']}",
            bucket=seaweedfs.BUCKET,
            access_key=data_dir.secret("s3_access_key"),
            secret_key=data_dir.secret("s3_secret_key"),
            ca_bundle=certificates.authority,
        )
        options = {
            "s3.cert.file": certificates.certificate,
            "s3.key.file": certificates.key,
            "s3.domainName": HOST,
        }
        spec = seaweedfs.describe(data_dir, ports)
        command = [*spec.command, *(f"-{name}={value}" for name, value in options.items())]
        child = Child(replace(spec, command=command, is_ready=lambda: answers(found)))
        child.start()
        try:
            child.wait_until_ready(threading.Event())
            yield found
        finally:
            child.kill()
            child.wait(5)


def answers(address: StoreAddress) -> bool:
    try:
        ObjectStore(address).ping()
    except ServiceUnavailable:
        return False
    return True


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that were resolved; that of the bucket leads here, as RFC 6761 has it."""
    seen: list[str] = []
    resolve = socket.getaddrinfo

    def lead_here(host: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        seen.append(name)
        return resolve("127.0.0.1" if name == VIRTUAL_HOST else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lead_here)
    return seen


@pytest.mark.parametrize(
    ("addressing", "host"), [(Addressing.PATH, HOST), (Addressing.VIRTUAL, VIRTUAL_HOST)]
)
def test_a_bucket_is_used_by_its_path_and_by_its_name(
    address: StoreAddress,
    certificates: Certificates,
    asked: list[str],
    addressing: Addressing,
    host: str,
) -> None:
    store = ObjectStore(replace(address, addressing=addressing))
    store.ping()
    key = f"named/{uuid4().hex}"
    store.put(key, b"picture", content_type="image/png")
    # As after a reply that was lost.
    store.put(key, b"picture", content_type="image/png")
    assert store.get(key) == b"picture"
    assert [found.key for found in store.list_all("named/")] == [key]
    assert set(asked) == {host}

    link = httpx.URL(store.presign(key, filename="1.png", content_type="image/png", ttl_s=60))
    form, fields = store.presign_post(f"{key}-2", content_type="image/png", num_bytes=4, ttl_s=60)
    assert (link.host, httpx.URL(form).host) == (host, host)
    with httpx.Client(verify=certificates.client_context()) as client:
        assert client.get(link).raise_for_status().content == b"picture"
        client.post(form, data=fields, files={"file": b"data"}).raise_for_status()
    assert store.get(f"{key}-2") == b"data"

    store.delete_prefix("named/")
    with pytest.raises(NotFound):
        store.get(key)
