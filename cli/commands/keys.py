"""`latentq keys`: who may use the service. For its operator: it asks the database itself."""

import json
import os
from typing import Annotated

import typer

from cli.connection import JsonOption, read_nearby
from cli.database import open_database
from shared.settings import PREFIX, DatabaseSettings

app = typer.Typer(help="Say who may use the service.", no_args_is_help=True)


@app.callback()
def keys() -> None:
    """Say who may use the service."""


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="Whose jobs the key shall see.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "cli",
    as_json: JsonOption = False,
) -> None:
    """Make an API key. It is shown once and stored as a hash.

    With --json, also what the webhooks of this tenant are signed with.

    The database is the one of LATENTQ_DATABASE_URL, else that of the `latentq up` next to us.
    """
    from shared.db.keys import KeyRepository, mint_key
    from shared.db.webhooks import WebhookSecretRepository

    key = mint_key()
    with open_database(_database_url()) as database:
        KeyRepository(database).ensure(key, tenant=tenant, name=name)
        secret = WebhookSecretRepository(database).ensure(tenant)
    made = {"api_key": key, "tenant": tenant, "name": name, "webhook_secret": secret}
    typer.echo(json.dumps(made) if as_json else key)


def _database_url() -> str:
    variable = f"{PREFIX}DATABASE_URL"
    if {variable, f"{variable}_FILE"} & {*os.environ}:  # noqa: TID251 - the process' entry
        return DatabaseSettings.read().database_url.get_secret_value()
    return read_nearby("database_url", otherwise=f"set {variable}")
