"""The commands of the pages on deployment: none can run here, but each must mean something."""

import argparse
import json
import re
import shlex
import subprocess
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.deploy import compose
from tests.deploy.commands import parse
from tests.deploy.test_manifests import LEAST, objects_of, render

ROOT = compose.ROOT
PAGES = ROOT / "docs" / "operations"
COMPOSE = PAGES / "deploy-with-compose.md"
KUBERNETES = PAGES / "deploy-on-kubernetes.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands_of(page: Path, program: str) -> list[list[str]]:
    """Read the commands of a page that begin so."""
    blocks = [text for language, text in _BLOCK.findall(page.read_text()) if language == "sh"]
    commands = [shlex.split(line) for text in blocks for line in text.splitlines()]
    return [words for words in commands if " ".join(words).startswith(program)]


def yaml_of(page: Path) -> dict[str, Any]:
    """Read the one YAML block of a page; what a tag of Compose says is its value."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor(
        "!override", lambda loader, node: loader.construct_sequence(node, deep=True)
    )
    (text,) = [text for language, text in _BLOCK.findall(page.read_text()) if language == "yaml"]
    document: dict[str, Any] = yaml.load(text, Loader)  # a safe loader's child
    return document


def test_the_pages_have_no_other_commands() -> None:
    for page, programs in ((COMPOSE, ("sh", "docker compose")), (KUBERNETES, ("kubectl", "helm"))):
        known = [words for program in programs for words in commands_of(page, f"{program} ")]
        assert len(known) == len(commands_of(page, ""))
        assert len(known) > 8


def docker_compose() -> argparse.ArgumentParser:
    """Read what the pages use of `docker compose`."""
    program = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    program.add_argument("--profile", action="append", default=[])
    kinds = program.add_subparsers(dest="kind", required=True)
    up = kinds.add_parser("up", allow_abbrev=False)
    up.add_argument("--detach", action="store_true")
    up.add_argument("--wait", action="store_true")
    up.add_argument("--scale", action="append", default=[])
    for name in ("build", "ps", "down"):
        kinds.add_parser(name)
    execute = kinds.add_parser("exec")
    execute.add_argument("service")
    execute.add_argument("command", nargs=argparse.REMAINDER)
    return program


def test_every_docker_command_names_what_the_file_has() -> None:
    services = compose.read()["services"]
    profiles = {profile for service in services.values() for profile in service.get("profiles", [])}
    seen = set()
    for words in commands_of(COMPOSE, "docker compose "):
        given = docker_compose().parse_args(words[2:])
        seen |= set(given.profile)
        assert set(given.profile) <= profiles
        if given.kind == "up":
            for scale in given.scale:
                name, number = scale.split("=")
                assert int(number) > 1
                assert set(services[name]["profiles"]) <= set(given.profile)
        if given.kind == "exec":
            assert given.service in services
            program, *arguments = given.command
            assert program == "latentq"
            parse(arguments)
    assert seen == profiles


def test_the_secrets_are_those_that_the_file_names(tmp_path: Path) -> None:
    (words,) = commands_of(COMPOSE, "sh ")
    folder = tmp_path / "secrets"
    subprocess.run([*words, folder], cwd=ROOT, check=True)
    made = {path.name: path for path in folder.iterdir()}
    document = compose.read({"LATENTQ_SECRETS": str(folder)})
    assert {Path(entry["file"]) for entry in document["secrets"].values()} == set(made.values())
    assert folder.stat().st_mode & 0o077 == 0
    texts = {name: path.read_text() for name, path in made.items()}
    assert texts["postgres_password"] in texts["database_url"]
    assert texts["valkey.conf"].split()[1] in texts["redis_url"]
    for part in ("access", "secret"):
        assert texts[f"s3_{part}_key"] in texts["seaweedfs_s3.json"]
    chosen = [texts[name] for name in ("postgres_password", "s3_access_key", "s3_secret_key")]
    assert len({*chosen, texts["grafana_password"]}) == 4
    assert min(map(len, chosen)) == 48

    again = subprocess.run([*words, folder], cwd=ROOT, capture_output=True, check=False)
    assert again.returncode == 1
    assert {name: path.read_text() for name, path in made.items()} == texts


def test_every_variable_of_the_compose_file_has_its_row() -> None:
    names = set(re.findall(r"\$\{(\w+)", compose.FILE.read_text()))
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| `([^`]+)` \|$", COMPOSE.read_text(), re.MULTILINE))
    assert rows.keys() == names
    for name, default in rows.items():
        assert f"${{{name}:-{default}}}" in compose.FILE.read_text()


def test_a_worker_of_another_gpu_is_one_that_compose_can_make() -> None:
    override = yaml_of(COMPOSE)
    (worker,) = override["services"].values()
    assert worker["extends"]["service"] in compose.read()["services"]
    assert (ROOT / worker["extends"]["file"]).exists()
    schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(override, json.loads(schema.read_text()))


def test_what_helm_installs_is_what_the_page_says() -> None:
    install, upgrade = commands_of(KUBERNETES, "helm ")
    for words in (install, upgrade):
        assert words[2] == "latentq"
        assert (ROOT / words[3] / "Chart.yaml").exists()
    settings = [words for flag, words in pairwise(install) if flag == "--set"]
    values: dict[str, Any] = {}
    for setting in settings:
        path, value = setting.split("=", 1)
        *outer, last = path.split(".")
        place = values
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = value
    names = {item["metadata"]["name"] for item in objects_of(render(values))}
    used = " ".join(word for words in commands_of(KUBERNETES, "kubectl ") for word in words)
    for kind_and_name in re.findall(r"(?:deploy|job)/(\S+)", used):
        if "/" not in kind_and_name and not kind_and_name.startswith("kubernetes"):
            assert kind_and_name in names


def test_kubectl_applies_files_that_exist_and_makes_the_secret_that_pods_mount() -> None:
    commands = commands_of(KUBERNETES, "kubectl ")
    for words in commands:
        for flag, path in pairwise(words):
            if flag == "--filename":
                assert (ROOT / path).exists()
    (secret,) = [words for words in commands if words[1:4] == ["create", "secret", "generic"]]
    keys = {word.removeprefix("--from-file=") for word in secret if word.startswith("--from-file")}
    text = "".join(render(LEAST).values())
    assert set(re.findall(r"/run/secrets/latentq/([a-z0-9-]+)", text)) == keys
    assert f"secretName: {secret[4]}" in text
    for words in commands:
        if "--" in words:
            program, *arguments = words[words.index("--") + 1 :]
            assert program == "latentq"
            parse(arguments)


def test_the_pools_of_the_page_are_pools_of_the_chart() -> None:
    objects = objects_of(render(LEAST | yaml_of(KUBERNETES)))
    names = {item["metadata"]["name"] for item in objects if item["kind"] == "Deployment"}
    assert names >= {f"latentq-worker-{name}" for name in yaml_of(KUBERNETES)["workers"]}


@pytest.mark.parametrize("page", [COMPOSE, KUBERNETES])
def test_a_page_says_what_was_never_tried(page: Path) -> None:
    assert "**What was tried.**" in page.read_text()
