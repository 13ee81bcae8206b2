"""The compose file, as far as it can be judged without Docker."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import compose
from tests.deploy.commands import missing_variables, parse, unknown_variables
from worker.watchdog import SETTLE_S

ROOT = compose.ROOT
DOCUMENT = compose.read()
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]


def test_the_file_is_a_compose_file() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    command = [checker, "--builtin-schema", "vendor.compose-spec", compose.FILE]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].split(":")[0]) > 0
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert not {"privileged", "network_mode", "pid", "ipc", "cap_add"} & service.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_comes_back_and_is_watched(name: str) -> None:
    service = SERVICES[name]
    if name == "migrate":
        assert service["restart"].startswith("on-failure")
        return
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_has_a_version(name: str) -> None:
    repository, _, tag = SERVICES[name]["image"].rpartition(":")
    assert repository
    assert re.match(r"v?\d+\.\d+", tag)


def test_our_images_have_our_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    tags = {SERVICES[name]["image"].split(":")[1] for name in compose.OURS}
    assert tags == {version}


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_container_names_is_there(name: str) -> None:
    service = SERVICES[name]
    assert set(service.get("secrets", [])) <= DOCUMENT["secrets"].keys()
    assert set(service["networks"]) <= DOCUMENT["networks"].keys()
    assert set(service.get("depends_on", [])) <= SERVICES.keys()
    for volume in service.get("volumes", []):
        source, _ = volume.split(":", 1)
        is_path = source.startswith(".")
        assert (ROOT / source).exists() if is_path else source in DOCUMENT["volumes"]
    if "build" in service:
        assert (ROOT / service["build"]["dockerfile"]).exists()


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_are_files(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        if re.search("PASSWORD|SECRET|KEY|DATABASE_URL|REDIS_URL", variable):
            assert variable.endswith("_FILE")
            assert value.removeprefix("/run/secrets/") in SERVICES[name]["secrets"]


@pytest.mark.parametrize("name", compose.OURS)
def test_our_processes_understand_what_they_are_given(name: str) -> None:
    service = SERVICES[name]
    process = service["command"][0]
    parse(service["command"])
    assert not unknown_variables(process, service["environment"])
    assert not missing_variables(process, service["environment"])
    if "healthcheck" in service:
        kind, program, *arguments = service["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "latentq")
        assert parse(arguments)["process"] == process


def test_ports_are_those_that_somebody_listens_on() -> None:
    (api,), (store,) = (SERVICES[name]["ports"] for name in ("api", "seaweedfs"))
    assert api == f"127.0.0.1:8000:{parse(SERVICES['api']['command'])['port']}"
    assert f"-s3.port={store.split(':')[-1]}" in SERVICES["seaweedfs"]["command"]
    environment = SERVICES["api"]["environment"]
    assert environment["LATENTQ_S3_ENDPOINT"] == "http://seaweedfs:8333"
    assert environment["LATENTQ_S3_PUBLIC_ENDPOINT"] == f"http://{store.rpartition(':')[0]}"


def test_the_stores_are_reached_from_inside_only() -> None:
    assert DOCUMENT["networks"]["inside"]["internal"] is True
    for name in ("postgres", "valkey"):
        assert SERVICES[name]["networks"] == ["inside"]
        assert "ports" not in SERVICES[name]
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_a_worker_leaves_before_it_is_killed() -> None:
    for name in ("worker", "worker-cpu"):
        grace_s = float(SERVICES[name]["environment"]["LATENTQ_GRACE_S"])
        assert compose.seconds(SERVICES[name]["stop_grace_period"]) > grace_s + SETTLE_S


def test_the_workers_differ_in_their_device_alone() -> None:
    gpu, cpu = (dict(SERVICES[name]) for name in ("worker", "worker-cpu"))
    reserved = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert reserved == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    assert (gpu["environment"]["LATENTQ_DEVICE"], cpu["environment"]["LATENTQ_DEVICE"]) == (
        "cuda",
        "cpu",
    )
    assert (gpu["profiles"], cpu["profiles"]) == (["gpu"], ["cpu"])
    for worker in (gpu, cpu):
        # A fixed name or port would forbid a second copy.
        assert not {"container_name", "ports", "hostname"} & worker.keys()
        worker["environment"] = worker["environment"] | {"LATENTQ_DEVICE": ""}
        del worker["deploy"], worker["profiles"]
    assert gpu == cpu


def test_valkey_neither_forgets_nor_evicts() -> None:
    command = " ".join(SERVICES["valkey"]["command"])
    assert "--appendonly yes --appendfsync everysec" in command
    assert "--maxmemory-policy noeviction" in command
