"""`latentq keys`: who may use the service. For its operator: it asks the database itself."""

import json
from typing import Annotated

import typer

from cli.connection import JsonOption, has_variable, read_nearby
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
    max_running: Annotated[
        int | None, typer.Option(min=1, help="Limit the tenant to so many jobs at once.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API key. It is shown once and stored as a hash.

    A limit that the tenant has stays as it is unless another one is given.
    With --json, also what the webhooks of this tenant are signed with.

    The database is the one of LATENTQ_DATABASE_URL, else that of the `latentq up` next to us.
    """
    from shared.db.keys import KeyRepository, mint_key
    from shared.db.tenants import TenantRepository
    from shared.db.webhooks import WebhookSecretRepository

    key = mint_key()
    with open_database(_database_url()) as database:
        if max_running is not None:
            TenantRepository(database).limit(tenant, max_running=max_running)
        KeyRepository(database).ensure(key, tenant=tenant, name=name)
        secret = WebhookSecretRepository(database).ensure(tenant)
    made = {"api_key": key, "tenant": tenant, "name": name, "webhook_secret": secret}
    typer.echo(json.dumps(made) if as_json else key)


@app.command()
def limit(
    tenant: Annotated[str, typer.Argument(help="Whose jobs.")],
    max_running: Annotated[
        int | None, typer.Option(min=1, help="So many at once; any number if left out.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say how many jobs a tenant may have running, or about to, at once, with all its keys.

    The database is the one of LATENTQ_DATABASE_URL, else that of the `latentq up` next to us.
    """
    from shared.db.tenants import TenantRepository

    with open_database(_database_url()) as database:
        TenantRepository(database).limit(tenant, max_running=max_running)
    if as_json:
        typer.echo(json.dumps({"tenant": tenant, "max_running": max_running}))


def _database_url() -> str:
    variable = f"{PREFIX}DATABASE_URL"
    if has_variable(variable):
        return DatabaseSettings.read().database_url.get_secret_value()
    return read_nearby("database_url", otherwise=f"set {variable}")
