"""The options of commands, the client's types and the API speak of the same fields."""

import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

import latentq_client
from api.grid import LIST_OF
from api.own_presets import PresetFields
from api.schemas import JobCreate
from cli.completion import complete_models, complete_presets
from cli.job_fields import OPTIONS, send_pictures, with_fields
from cli.main import app
from latentq_client import Client, JobBody, SweepFields
from shared.errors import ConfigurationError


def test_the_client_knows_the_fields_of_the_api() -> None:
    assert set(get_type_hints(JobBody)) == set(JobCreate.model_fields)
    assert set(get_type_hints(latentq_client.PresetFields)) == set(PresetFields.model_fields)
    assert set(get_type_hints(SweepFields)) == set(LIST_OF.values())


def test_there_is_an_option_for_each_field() -> None:
    assert set(OPTIONS) == set(JobCreate.model_fields) - {"prompt", "webhook"}


def make_program() -> typer.Typer:
    program = typer.Typer()

    @program.command()
    @with_fields(["steps", "guidance", "allow_undistilled", "metadata", "sampler"])
    def show(prompt: str, *, fields: dict[str, Any], wait: bool = False) -> None:
        """Say what was given."""
        typer.echo(json.dumps({"prompt": prompt, "wait": wait, **fields}))

    return program


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ([], {}),
        (["--steps", "0", "--wait"], {"steps": 0, "wait": True}),
        (["--allow-undistilled"], {"allow_undistilled": True}),
        (["--metadata", "a=b", "--metadata", "c=d"], {"metadata": ["a=b", "c=d"]}),
        (["--sampler", "euler", "--guidance", "2"], {"sampler": "euler", "guidance": 2.0}),
    ],
)
def test_a_command_gets_what_was_given_and_no_more(
    arguments: list[str], given: dict[str, Any]
) -> None:
    ended = CliRunner().invoke(make_program(), ["a star", *arguments])
    assert json.loads(ended.stdout) == {"prompt": "a star", "wait": False} | given


#: Where nobody listens: nothing is sent where no picture is.
NOBODY = Client("http://127.0.0.1:1", "key")


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (["pastel"], [{"id": "pastel"}]),
        (["pastel:0.8", "ink:-1"], [{"id": "pastel", "weight": 0.8}, {"id": "ink", "weight": -1}]),
    ],
)
def test_adapters_are_sent_with_their_weights(given: list[str], sent: list[object]) -> None:
    fields = send_pictures(NOBODY, {"adapters": given, "steps": 3})
    assert fields == {"adapters": sent, "steps": 3}


@pytest.mark.parametrize("text", ["pastel:", "pastel:much", "pastel:1:2"])
def test_an_adapter_without_a_readable_weight_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--adapter takes ID or ID:WEIGHT"):
        send_pictures(NOBODY, {"adapters": [text]})


@pytest.mark.parametrize("command", ["submit", "estimate", "sweep"])
def test_the_help_names_the_options_of_fields(command: str) -> None:
    ended = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert ended.exit_code == 0
    assert "--negative-prompt" in ended.stdout
    assert ("--samplers" in ended.stdout) is (command == "sweep")


def test_a_shell_without_a_service_completes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LATENTQ_URL", "LATENTQ_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert complete_models("d") == complete_presets("") == []
