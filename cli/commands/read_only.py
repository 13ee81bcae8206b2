"""`latentq read-only`: close the service to changes. For its operator: it asks the database."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import JsonOption
from cli.database import find_database, open_database
from shared.errors import ConfigurationError

if TYPE_CHECKING:
    from shared.db.read_only import ReadOnlyNotice, ReadOnlyRepository

app = typer.Typer(help="Close the service to changes, and open it again.", no_args_is_help=True)


@app.callback()
def read_only() -> None:
    """Close the service to changes, and open it again."""


@app.command()
def on(
    reason: Annotated[
        str, typer.Option(help="What callers are told of it.", metavar="TEXT")
    ] = "maintenance is under way",
    as_json: JsonOption = False,
) -> None:
    """Have every API process refuse changes with 503; all of them do within 5 seconds.

    Reading works, accepted jobs go on, and nothing is deleted from the store. It stays so,
    whatever is restarted, until `latentq read-only off`.

    The database is that of LATENTQ_DATABASE_URL, else of the `latentq up` next to us.
    """
    with _open_repository() as repository:
        notice = repository.turn_on(reason)
    _print(notice, as_json=as_json)


@app.command()
def off(as_json: JsonOption = False) -> None:
    """Have every API process take changes again; all of them do within 5 seconds."""
    with _open_repository() as repository:
        repository.turn_off()
    _print(None, as_json=as_json)


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Tell whether the service is closed, since when and why."""
    with _open_repository() as repository:
        notice = repository.find()
    _print(notice, as_json=as_json)


@contextmanager
def _open_repository() -> Iterator["ReadOnlyRepository"]:
    """Open the database.

    Raises:
        ConfigurationError: It is not said where that is, or its schema is an older one.
        ServiceUnreachable: It does not answer.
    """
    from shared.db.migrate import is_pending
    from shared.db.read_only import ReadOnlyRepository

    with open_database(find_database()) as database:
        if is_pending(database):
            raise ConfigurationError("migrations are missing: run latentq migrate")
        yield ReadOnlyRepository(database)


def _print(notice: "ReadOnlyNotice | None", *, as_json: bool) -> None:
    if as_json:
        shown = notice and {"since": notice.since.isoformat(), "reason": notice.reason}
        typer.echo(json.dumps({"read_only": shown}))
    elif notice is None:
        typer.echo("the service takes changes")
    else:
        typer.echo(f"read-only since {notice.since:%Y-%m-%d %H:%M:%S} UTC: {notice.reason}")
