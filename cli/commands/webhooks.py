"""`latentq webhooks`: what receivers were told."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli.commands import endpoints
from cli.connection import ApiKeyOption, JsonOption, UrlOption, connect

app = typer.Typer(help="See what was told of jobs, and tell it again.", no_args_is_help=True)
app.add_typer(endpoints.app, name="endpoints")


@app.command()
def ls(  # noqa: PLR0913 - one option for each filter
    *,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 20,
    status: Annotated[str | None, typer.Option(help="pending, delivered or dead.")] = None,
    job_id: Annotated[str | None, typer.Option("--job", help="Only those of this job.")] = None,
    endpoint_id: Annotated[
        str | None, typer.Option("--endpoint", help="Only those to this endpoint.")
    ] = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List deliveries, newest first."""
    filters = {"status": status, "job_id": job_id, "endpoint_id": endpoint_id}
    given = {name: value for name, value in filters.items() if value is not None}
    with connect(url, api_key) as client:
        found = [d for d, _ in zip(client.deliveries(filters=given), range(limit), strict=False)]
    _print(found, found, as_json=as_json)


@app.command()
def redeliver(
    delivery_id: Annotated[str, typer.Argument(metavar="ID", help="A delivery's id.")],
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send an event again, now, whatever became of it."""
    with connect(url, api_key) as client:
        delivery = client.redeliver(delivery_id)
    _print(delivery, [delivery], as_json=as_json)


def _print(document: object, deliveries: list[Mapping[str, Any]], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    table = Table(box=None, header_style="bold")
    # Whole, in however narrow a terminal: what is copied, and what one looks for.
    table.add_column("id", no_wrap=True, min_width=36)
    table.add_column("last", no_wrap=True, min_width=15)
    for name in ("status", "attempts", "event", "host", "job", "next"):
        table.add_column(name, no_wrap=True)
    for delivery in deliveries:
        last = delivery["attempts"][-1] if delivery["attempts"] else None
        code = "" if last is None or last["status_code"] is None else f" {last['status_code']}"
        table.add_row(
            delivery["id"],
            f"{delivery['last_outcome'] or ''}{code}",
            delivery["status"],
            str(len(delivery["attempts"])),
            delivery["type"],
            delivery["host"],
            delivery["job_id"] or "",
            delivery["next_attempt_at"] or "",
        )
    Console().print(table)
