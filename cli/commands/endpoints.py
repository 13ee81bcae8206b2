"""`latentq webhooks endpoints`: who is told of what becomes of all jobs."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli.connection import ApiKeyOption, JsonOption, UrlOption, connect
from latentq_client import EndpointFields

app = typer.Typer(help="Register who is told of what becomes of all jobs.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="An endpoint's id.")]


@app.command()
def ls(url: UrlOption = None, api_key: ApiKeyOption = None, as_json: JsonOption = False) -> None:
    """List endpoints, newest first; one that is not enabled with the reason."""
    with connect(url, api_key) as client:
        found = list(client.webhook_endpoints())
    _print(found, found, as_json=as_json)


@app.command()
def add(
    receiver: Annotated[str, typer.Argument(metavar="RECEIVER", help="The URL to be called.")],
    *,
    event: Annotated[
        list[str] | None,
        typer.Option(help="What to tell, once for each; how jobs end if left out."),
    ] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a receiver, and print the secret that its messages are signed with."""
    fields: EndpointFields = {"description": description}
    if event:
        fields["events"] = event
    with connect(url, api_key) as client:
        made = client.create_webhook_endpoint(receiver, **fields)
    typer.echo(json.dumps(made, indent=2) if as_json else f"{made['id']} {made['secret']}")


@app.command()
def enable(
    endpoint_id: IdArgument,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell an endpoint again that had answered 410 or was disabled."""
    with connect(url, api_key) as client:
        changed = client.update_webhook_endpoint(endpoint_id, enabled=True)
    _print(changed, [changed], as_json=as_json)


@app.command()
def rm(
    endpoint_id: IdArgument,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove an endpoint, with its secrets and deliveries."""
    with connect(url, api_key) as client:
        client.delete_webhook_endpoint(endpoint_id)
    if as_json:
        typer.echo(json.dumps({"deleted": endpoint_id}, indent=2))


@app.command()
def rotate(
    endpoint_id: IdArgument,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print another secret; messages are signed with the one before too for a day."""
    with connect(url, api_key) as client:
        secret = client.rotate_webhook_secret(endpoint_id)
    typer.echo(json.dumps({"secret": secret}, indent=2) if as_json else secret)


@app.command("test")
def try_endpoint(
    endpoint_id: IdArgument,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send an event that tells of no job; `latentq webhooks ls` shows what became of it."""
    with connect(url, api_key) as client:
        delivery = client.test_webhook_endpoint(endpoint_id)
    typer.echo(json.dumps(delivery, indent=2) if as_json else delivery["id"])


def _print(document: object, endpoints: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    table = Table(box=None, header_style="bold")
    table.add_column("id", no_wrap=True, min_width=35)
    table.add_column("state", no_wrap=True, min_width=len("requested"))
    for name in ("events", "url", "description"):
        table.add_column(name)
    for endpoint in endpoints:
        table.add_row(
            endpoint["id"],
            "enabled" if endpoint["enabled"] else endpoint["disabled_reason"],
            ", ".join(endpoint["events"]),
            endpoint["url"],
            endpoint["description"],
        )
    Console().print(table)
