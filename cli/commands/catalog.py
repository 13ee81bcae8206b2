"""`latentq models`, `presets`, `samplers`: what can be asked for."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli.connection import ApiKeyOption, JsonOption, UrlOption, connect


def models(
    url: UrlOption = None, api_key: ApiKeyOption = None, as_json: JsonOption = False
) -> None:
    """Show which models there are."""
    with connect(url, api_key) as client:
        body = client.models()
    names = ("id", "medium", "prediction_type", "width", "height", "max_tokens", "description")
    _print(body, names, body["data"], as_json=as_json)


def presets(
    url: UrlOption = None, api_key: ApiKeyOption = None, as_json: JsonOption = False
) -> None:
    """Show which presets there are, before a model's own values."""
    with connect(url, api_key) as client:
        body = client.presets()
    names = ("name", "version", "kind", "sampler", "schedule", "steps", "guidance")
    rows = [
        {"name": preset["name"], "version": preset["version"], "kind": kind, **values}
        for preset in body["data"]
        for kind, values in [*preset["values"].items(), ("distilled", preset["distilled"])]
    ]
    _print(body, names, rows, as_json=as_json)


def samplers(
    model: Annotated[str | None, typer.Option(help="The default model if left out.")] = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which samplers work on which schedules, and with how many steps at most."""
    with connect(url, api_key) as client:
        body = client.samplers(model)
    names = ("sampler", "schedule", "supported", "max_steps", "deterministic", "reason", "instead")
    _print(body, names, body["data"], as_json=as_json)


def _print(
    body: Mapping[str, Any],
    names: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    *,
    as_json: bool,
) -> None:
    if as_json:
        typer.echo(json.dumps(body, indent=2))
        return
    table = Table(box=None, header_style="bold")
    for name in names:
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*(_show(row[name]) for name in names))
    Console().print(table)


def _show(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case _:
            return str(value)
