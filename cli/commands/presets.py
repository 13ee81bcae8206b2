"""`latentq presets`: settings under a name."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_type_hints

import typer

from cli.completion import complete_presets
from cli.connection import ApiKeyOption, JsonOption, UrlOption, connect
from cli.job_fields import with_fields
from cli.printing import print_json, print_table
from latentq_client import PresetFields

app = typer.Typer(help="Show which presets there are, and name your own.")
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A preset.", autocompletion=complete_presets)
]


@app.callback(invoke_without_command=True)
def presets(
    context: typer.Context,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which presets there are, and name your own."""
    if context.invoked_subcommand is None:
        ls(url, api_key, as_json)


@app.command()
def ls(url: UrlOption = None, api_key: ApiKeyOption = None, as_json: JsonOption = False) -> None:
    """List presets, before a model's own values."""
    with connect(url, api_key) as client:
        body = client.presets()
    _print(body, body["data"], as_json=as_json)


@app.command()
def get(
    name: Name, url: UrlOption = None, api_key: ApiKeyOption = None, as_json: JsonOption = False
) -> None:
    """Show a preset with all its versions."""
    with connect(url, api_key) as client:
        body = client.preset(name)
    _print(body, body["versions"], as_json=as_json)


@app.command()
@with_fields(list(get_type_hints(PresetFields)))
def put(
    name: Name,
    *,
    fields: dict[str, Any],
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the next version of a preset of your own, unless the newest says the same."""
    with connect(url, api_key) as client:
        body = client.put_preset(name, description=description, **fields)
    if as_json:
        print_json(body)
    else:
        typer.echo(f"{body['name']}@{body['version']}")


@app.command()
def rm(
    name: Name, url: UrlOption = None, api_key: ApiKeyOption = None, as_json: JsonOption = False
) -> None:
    """Hide a preset of your own from new jobs."""
    with connect(url, api_key) as client:
        client.delete_preset(name)
    if as_json:
        print_json({"deleted": name})


def _print(body: object, presets: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    names = ("name", "version", "kind", "sampler", "schedule", "steps", "guidance")
    rows = [
        {"name": preset["name"], "version": preset["version"], "kind": kind, **values}
        for preset in presets
        for kind, values in [
            *preset["values"].items(),
            *((kind, preset[kind]) for kind in ("flow", "distilled")),
        ]
    ]
    print_table(body, names, rows, as_json=as_json)
