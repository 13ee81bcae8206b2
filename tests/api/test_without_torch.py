"""The API runs in an environment of `latentq[api]` alone."""

import os
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cli.standalone.servers import Servers
from shared.db.keys import KeyRepository, mint_key
from tests.fixtures.stack import free_port, wait_until

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 30


def requirements_of(name: str, extras: frozenset[str]) -> list[Requirement]:
    requirements = map(Requirement, distribution(name).requires or [])
    return [
        requirement
        for requirement in requirements
        if requirement.marker is None
        or any(requirement.marker.evaluate({"extra": extra}) for extra in extras or {""})
    ]


def closure(name: str, extras: frozenset[str]) -> set[str]:
    """Names of a distribution and of all that it brings."""
    found = {name}
    waiting = [(name, extras)]
    seen = set()
    while waiting:
        current, wanted = waiting.pop()
        if (current, wanted) in seen:
            continue
        seen.add((current, wanted))
        for requirement in requirements_of(current, wanted):
            dependency = canonicalize_name(requirement.name)
            try:
                distribution(dependency)
            except PackageNotFoundError:
                continue  # for another platform
            found.add(dependency)
            waiting.append((dependency, frozenset(requirement.extras)))
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `latentq[api]` needs and nothing else."""
    site = tmp_path_factory.mktemp("site")
    for name in closure("latentq", frozenset({"api"})):
        for file in distribution(name).files or []:
            top = file.parts[0]
            link = site / top
            if top in ("..", "__pycache__") or link.exists():
                continue
            link.symlink_to(Path(str(distribution(name).locate_file(top))))
    return site


def environment(site: Path) -> dict[str, str]:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "client" / "src", site)))
    return {"PATH": os.environ["PATH"], "PYTHONPATH": path}


@pytest.mark.parametrize("package", ["torch", "diffusers", "transformers", "numpy", "PIL"])
def test_the_environment_has_none_of_the_engines_packages(site: Path, package: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-S", "-c", f"import {package}"],
        env=environment(site),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ModuleNotFoundError" in ended.stderr


def test_the_api_starts_and_takes_a_job(
    site: Path, servers: Servers, database: sa.Engine, database_url: str
) -> None:
    key = mint_key()
    KeyRepository(database).ensure(key, tenant="default", name="test")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-S", "-m", "cli.main", "api", "--port", str(port)],
        env=environment(site) | servers.environment() | {"LATENTQ_DATABASE_URL": database_url},
        cwd=site,
    )
    base_url = f"http://127.0.0.1:{port}"
    try:
        wait_until(
            lambda: process.poll() is not None or answers(base_url), timeout_s=START_TIMEOUT_S
        )
        answer = httpx.post(
            f"{base_url}/v1/jobs",
            json={"prompt": "a red star", "steps": 4},
            headers={"Authorization": f"Bearer {key}"},
        )
        assert answer.status_code == 202, answer.text
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=10)


def answers(base_url: str) -> bool:
    try:
        return httpx.get(f"{base_url}/readyz").status_code == 200
    except httpx.TransportError:
        return False
