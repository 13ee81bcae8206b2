"""`latentq keys`: who may use the service. For its operator: it asks the database itself."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from cli.connection import JsonOption
from cli.database import find_database, open_database
from shared.access import DEFAULT_SCOPES, KeyLimits, KeyTerms, Scope

if TYPE_CHECKING:
    from shared.db.keys import ApiKey

app = typer.Typer(help="Say who may use the service.", no_args_is_help=True)


@app.callback()
def keys() -> None:
    """Say who may use the service."""


@app.command()
def create(  # noqa: PLR0913 - one option for each term of a key
    tenant: Annotated[str, typer.Option(help="Whose jobs the key shall see.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "cli",
    max_running: Annotated[
        int | None, typer.Option(min=1, help="Limit the tenant to so many jobs at once.")
    ] = None,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="What the key is for, any number of times; all but admin if left out."),
    ] = None,
    expires_in_days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="For how long; for ever if left out.")
    ] = None,
    limits: Annotated[
        str, typer.Option(help='The key\'s own limits as JSON, such as {"max_queued": 100}.')
    ] = "{}",
    as_json: JsonOption = False,
) -> None:
    """Make an API key. It is shown once and stored as a hash.

    A limit that the tenant has stays as it is unless another one is given.
    With --json, also what the webhooks of this tenant are signed with.

    The database is the one of LATENTQ_DATABASE_URL, else that of the `latentq up` next to us.
    """
    from shared.db.keys import KeyRepository, key_id_of, mint_key
    from shared.db.tenants import TenantRepository
    from shared.db.webhooks import WebhookSecretRepository

    terms = KeyTerms(
        frozenset(scope) if scope else DEFAULT_SCOPES,
        _read_limits(limits),
        expires_in_days and expires_in_days * 86_400,
    )
    key = mint_key()
    with open_database(find_database()) as database:
        if max_running is not None:
            TenantRepository(database).limit(tenant, max_running=max_running)
        KeyRepository(database).ensure(key, tenant=tenant, name=name, terms=terms)
        secret = WebhookSecretRepository(database).ensure(tenant)
    made = {
        "api_key": key,
        "id": key_id_of(key),
        "tenant": tenant,
        "name": name,
        "webhook_secret": secret,
    }
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

    with open_database(find_database()) as database:
        TenantRepository(database).limit(tenant, max_running=max_running)
    if as_json:
        typer.echo(json.dumps({"tenant": tenant, "max_running": max_running}))


@app.command()
def restrict(
    key_id: Annotated[str, typer.Argument(help="Which key; ls tells its id.")],
    limits: Annotated[
        str, typer.Argument(help='All limits it shall have, as JSON, such as {"max_queued": 100}.')
    ],
    as_json: JsonOption = False,
) -> None:
    """Give a key other limits in place of all it has; within half a minute they hold everywhere."""
    from shared.db.keys import KeyRepository

    chosen = _read_limits(limits)
    with open_database(find_database()) as database:
        key = KeyRepository(database).limit(None, key_id, chosen)
    if as_json:
        typer.echo(json.dumps(_show(key)))


@app.command(name="ls")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Whose keys; everybody's if left out.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the keys that were not revoked."""
    from shared.db.keys import KeyRepository

    with open_database(find_database()) as database:
        keys = KeyRepository(database).all(tenant)
    if as_json:
        typer.echo(json.dumps([_show(key) for key in keys]))
        return
    for key in keys:
        scopes = ",".join(sorted(key.scopes))
        typer.echo(f"{key.id}  …{key.last4 or '????'}  {key.tenant}  {key.name}  {scopes}")


@app.command()
def rotate(
    key_id: Annotated[str, typer.Argument(help="Which key; ls tells its id.")],
    as_json: JsonOption = False,
) -> None:
    """Make a key that takes a key's place, on its terms; that one ends in 24 hours."""
    from shared.db.keys import KeyRepository, mint_key

    successor = mint_key()
    with open_database(find_database()) as database:
        key = KeyRepository(database).rotate(None, key_id, successor)
    typer.echo(json.dumps({"api_key": successor, **_show(key)}) if as_json else successor)


@app.command()
def rotate_webhook_secret(
    tenant: Annotated[str, typer.Argument(help="Whose receivers, those that jobs name.")],
    as_json: JsonOption = False,
) -> None:
    """Print another signing secret; messages are signed with the one before too for 24 hours."""
    from shared.db.webhooks import WebhookSecretRepository

    with open_database(find_database()) as database:
        secret = WebhookSecretRepository(database).rotate(tenant)
    typer.echo(json.dumps({"tenant": tenant, "webhook_secret": secret}) if as_json else secret)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Which key; ls tells its id.")],
    as_json: JsonOption = False,
) -> None:
    """Make a key invalid; within half a minute no process takes it any more."""
    from shared.db.keys import KeyRepository

    with open_database(find_database()) as database:
        KeyRepository(database).revoke(None, key_id)
    if as_json:
        typer.echo(json.dumps({"revoked": key_id}))


def _read_limits(text: str) -> KeyLimits:
    try:
        return KeyLimits.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the JSON"
        known = ", ".join(KeyLimits.model_fields)
        raise typer.BadParameter(f"{where}: {first['msg']}; known: {known}") from error


def _show(key: "ApiKey") -> dict[str, object]:
    shown = asdict(key) | {"limits": key.limits.model_dump(exclude_none=True)}
    shown["scopes"] = sorted(key.scopes)
    for name in ("created_at", "expires_at", "last_used_at"):
        shown[name] = shown[name] and shown[name].isoformat()
    return shown
