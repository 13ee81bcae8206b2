"""What the compose file and the Dockerfiles say is done once, without Docker."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cli.standalone import postgres, valkey
from cli.standalone.child import Child
from cli.standalone.state import DataDir
from tests.deploy import compose
from tests.deploy.containers import Host, make_secrets, programs
from tests.deploy.test_images import instructions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WAIT_S = 60


@pytest.fixture
def host(server_folder: Path) -> Iterator[Host]:
    """This machine, with the three servers of the compose file healthy."""
    folder = server_folder / "compose"
    with DataDir(folder) as data_dir:
        ports = data_dir.ports()
    places = {
        "@postgres:5432": f"@127.0.0.1:{ports['postgres']}",
        "@valkey:6379": f"@127.0.0.1:{ports['valkey']}",
        "seaweedfs:8333": f"127.0.0.1:{ports['s3']}",
        "127.0.0.1:8333": f"127.0.0.1:{ports['s3']}",
        "-s3.port=8333": f"-s3.port={ports['s3']}",
        "/run/secrets": str(folder / "secrets"),
        "/models": str(compose.ROOT / "models"),
        "0.0.0.0": "127.0.0.1",
    }
    secrets = make_secrets(folder, places)
    # The image's own entry point gives PostgreSQL its password; here the standalone starter does.
    state = json.loads((folder / "state.json").read_text())
    state["secrets"]["postgres_password"] = (secrets / "postgres_password").read_text()
    (folder / "state.json").write_text(json.dumps(state))
    with DataDir(folder) as data_dir:
        server = Path(valkey.describe(data_dir, ports["valkey"]).command[0]).parent
        host = Host(folder, programs(folder, postgres.find_programs(), server), places)
        database = describe_postgres(host, data_dir, ports["postgres"])
        database.start()
        try:
            start_valkey_and_seaweedfs(host, ports)
            database.wait_until_ready(threading.Event())
            postgres.ensure_database(data_dir, ports["postgres"])
            yield host
        finally:
            host.kill()
            database.signal_stop()
            database.wait(10)


def describe_postgres(host: Host, data_dir: DataDir, port: int) -> Child:
    """Say how to run PostgreSQL with the file's options and health check."""
    spec = postgres.describe(data_dir, port)
    _, *check = host.document["services"]["postgres"]["healthcheck"]["test"]
    command = [str(port) if word == "5432" else word for word in check]

    def is_healthy() -> bool:
        ended = subprocess.run(command, env={"PATH": host.path}, capture_output=True, check=False)
        return ended.returncode == 0

    return Child(
        dataclasses.replace(
            spec, command=[*spec.command, *host.options("postgres")], is_ready=is_healthy
        )
    )


def start_valkey_and_seaweedfs(host: Host, ports: dict[str, int]) -> None:
    """Start both and wait for their health checks; each part gets a port that is free here."""
    parts = [
        f"-{part}.port{kind}={ports[part + name]}"
        for part in ("master", "volume", "filer", "s3", "admin")
        for kind, name in (("", ""), (".grpc", "_grpc"))
    ]
    started = [
        host.start("valkey", "--port", str(ports["valkey"]), "--bind", "127.0.0.1"),
        host.start("seaweedfs", *parts),
    ]
    for container in started:
        container.wait_until_healthy()


def test_a_job_goes_through_what_the_compose_file_starts(host: Host) -> None:
    host.run("migrate")
    api, dispatcher, *workers = (
        # Two copies, as `--scale worker-cpu=2` makes them.
        host.start(name)
        for name in ("api", "dispatcher", "worker-cpu", "worker-cpu")
    )
    for container in (api, dispatcher, *workers):
        container.wait_until_healthy()
    for container in (api, dispatcher, *workers):
        metrics = f"http://127.0.0.1:{container.place.ports['9464']}/metrics"
        assert "latentq_build_info" in httpx.get(metrics).raise_for_status().text
    key = host.run("api", "latentq", "keys", "create", "--tenant", "default").strip()
    with httpx.Client(
        base_url=f"http://127.0.0.1:{api.place.ports['8000']}",
        headers={"Authorization": f"Bearer {key}", "Prefer": f"wait={WAIT_S}"},
        timeout=WAIT_S + 5,
    ) as client:
        body = {"prompt": "a red star", "steps": 4, "num_outputs": 2}
        job = client.post("/v1/jobs", json=body).raise_for_status().json()
        assert job["status"] == "succeeded", job
    picture = httpx.get(job["artifacts"][0]["url"]).raise_for_status().content
    assert picture.startswith(b"\x89PNG")

    for container in (api, *workers, dispatcher):
        # uvicorn ends by the signal that stopped it.
        assert container.stop() in ({0, -15} if container is api else {0}), container.name
    for container in (api, *workers, dispatcher):
        assert not container.is_healthy(), container.name
    written = {c.name for c in host.containers if any(c.place.home.iterdir())}
    assert written == {"valkey", "seaweedfs"}  # whose volumes these are


def test_an_image_is_built_as_its_dockerfile_says(tmp_path: Path) -> None:
    """Build the service's image into folders: from the lock, no torch, twice the same wheel."""
    digests = set()
    for name in ("first", "second"):
        home = build_service(tmp_path / name, with_packages=name == "first")
        (wheel,) = (home / "build" / "wheels").iterdir()
        digests.add(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert len(digests) == 1

    bin_folder = tmp_path / "first" / "opt" / "latentq" / "bin"
    environment = {"PATH": f"{bin_folder}:/usr/bin:/bin"}
    for process in ("api", "dispatcher", "migrate"):
        ended = subprocess.run(
            ["latentq", process], env=environment, capture_output=True, text=True, check=False
        )
        # Everything that the process is made of was imported.
        assert (ended.returncode, "set LATENTQ_" in ended.stderr) == (2, True), ended.stderr
    ended = subprocess.run(
        [bin_folder / "python", "-c", "import torch"], capture_output=True, text=True, check=False
    )
    assert "ModuleNotFoundError" in ended.stderr


def build_service(home: Path, *, with_packages: bool) -> Path:
    """Follow the first stage of the Dockerfile in folders of ours."""
    (home / "build").mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "venv", home / "python"], check=True)
    variables = {"PATH": f"{home / 'python' / 'bin'}:/usr/bin:/bin", "HOME": str(home)}
    passed = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    for word, text in instructions("service")[1:]:
        if word == "FROM":
            return home
        if word == "ENV":
            variables |= dict(entry.split("=", 1) for entry in text.split())
        if word == "COPY":
            copy_context(text.split()[0], home / "build")
        if word == "RUN":
            steps = text.replace("/opt/latentq", str(home / "opt" / "latentq"))
            if not with_packages:
                kept = [step for step in steps.split("&& ") if "opt/latentq" not in step]
                steps = "&& ".join(kept)
            subprocess.run(
                ["sh", "-euc", steps], cwd=home / "build", env=passed | variables, check=True
            )
    raise AssertionError("there is no second stage")


def copy_context(source: str, target: Path) -> None:
    """Copy what Docker is sent: the files that .dockerignore lets through."""
    if source != ".":
        shutil.copytree(compose.ROOT / source, target / source)
        return
    allowed = (compose.ROOT / ".dockerignore").read_text().splitlines()
    for path in (line[1:] for line in allowed if line.startswith("!")):
        if (compose.ROOT / path).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(compose.ROOT / path, target / path, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy(compose.ROOT / path, target / path)
