"""A job through processes that reach nothing but by TLS, and what an operator is told otherwise."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bench.cluster import Cluster, warm_up
from bench.proxy import Proxy, ProxyLoop
from cli.standalone.servers import Servers
from latentq_client import Client
from tests.fixtures.tls import Certificates, Secured, secured

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "network.md"
PROCESSES = ("api", "dispatcher", "worker-1")


@pytest.fixture(scope="module")
def by_tls(servers: Servers, certificates: Certificates) -> Iterator[Secured]:
    with secured(servers, certificates.context()) as behind:
        yield behind


@pytest.fixture(scope="module")
def cluster(
    servers: Servers, by_tls: Secured, certificates: Certificates, server_folder: Path
) -> Iterator[Cluster]:
    """API, dispatcher and worker, which are told of TLS alone."""
    warm_up()
    logs = server_folder / "tls-logs"
    logs.mkdir()
    variables = follow(by_tls, certificates.authority)
    with Cluster(servers, logs, variables=variables, step_s=0.01) as running:
        for name in PROCESSES:
            running.start(name)
        for name in PROCESSES:
            running.wait_until_ready(name)
        yield running


def blocks() -> tuple[str, str]:
    """What the page says of TLS, and of several servers."""
    tls, several = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return tls, several


def follow(by_tls: Secured, authority: Path) -> dict[str, str]:
    """Set the variables of the page, with the addresses of this machine."""
    text = translate(blocks()[0], by_tls, authority)
    exports = "".join(line for line in text.splitlines(keepends=True) if "export" in line)
    ended = subprocess.run(
        ["bash", "-euc", f"{exports}\nenv"], env={}, capture_output=True, text=True, check=True
    )
    return {
        name: value
        for name, _, value in (line.partition("=") for line in ended.stdout.splitlines())
        if name.startswith("LATENTQ_")
    }


def translate(text: str, by_tls: Secured, authority: Path) -> str:
    places = {
        "postgresql://latentq:secret@db.internal:5432/latentq?": by_tls.database_url(),
        "rediss://:secret@redis.internal:6379/0?": by_tls.redis_url(),
        "https://s3.internal:8333": by_tls.s3_endpoint(),
        "/etc/latentq/ca.pem": str(authority),
    }
    for there, here in places.items():
        assert there in text
        text = text.replace(there, here)
    return text


def run(text: str, variables: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run commands of the page, with the credentials that it leaves out."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euc", text],
        env={"PATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def keys_of(servers: Servers) -> dict[str, str]:
    return {
        "LATENTQ_S3_ACCESS_KEY": servers.s3_access_key,
        "LATENTQ_S3_SECRET_KEY": servers.s3_secret_key,
    }


def test_a_job_goes_through_tls_from_end_to_end(
    cluster: Cluster,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    with ProxyLoop() as loop:
        front = Proxy(loop, cluster.api_port, tls=certificates.context())
        with Client(f"https://localhost:{front.port}", cluster.api_key) as client:
            job = client.generate("a red star", steps=4, timeout=60)
            assert job.artifacts[0].url.startswith("https://localhost:")
            job.save(tmp_path / "star.png")
            assert [event.type for event in job.events()][-1] == "succeeded"
        front.close()
    assert (tmp_path / "star.png").read_bytes().startswith(b"\x89PNG")


def test_what_the_page_says_is_healthy(
    cluster: Cluster, by_tls: Secured, certificates: Certificates
) -> None:
    tls, several = blocks()
    ended = run(translate(tls, by_tls, certificates.authority), keys_of(cluster.servers))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    there = by_tls.servers.database_url.partition("://")[2]
    who, _, rest = there.partition("@")
    address, _, database = rest.partition("/")
    here = f"{who}@127.0.0.1:1,{address}/{database}"
    page = "latentq:secret@db-1.internal:5432,db-2.internal:5432/latentq"
    assert page in several
    ended = run(several.replace(page, here), {})
    assert ended.returncode == 0, ended.stderr


def test_an_operator_is_told_whose_certificate_is_wrong(
    servers: Servers, by_tls: Secured, certificates: Certificates
) -> None:
    text = translate(blocks()[0], by_tls, certificates.stranger)
    migrate, doctor = (
        run(text.replace(f"latentq {other}\n", ""), keys_of(servers))
        for other in ("doctor", "migrate")
    )
    says = "PostgreSQL does not answer: SSL error: certificate verify failed"
    assert (migrate.returncode, migrate.stderr) == (3, f"latentq: {says}\n")
    assert doctor.returncode == 3
    told = " ".join(doctor.stdout.split())
    assert says in told
    for store in ("Redis", "the object store"):
        assert f"{store} does not answer: its certificate is not trusted" in told
