"""Receivers of webhooks, and what messages to them are signed with."""

import base64
import hashlib
import secrets
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from shared.access import OVERLAP_S
from shared.db.webhook_tables import webhook_endpoints, webhook_secrets
from shared.webhook import host_of


def endpoint_id_of(tenant: str, url: str) -> str:
    """Name the receiver that a tenant's jobs call by this URL."""
    return f"ep_{hashlib.sha256(f'{tenant} {url}'.encode()).hexdigest()[:32]}"


def ensure_endpoint(connection: sa.Connection, tenant: str, url: str) -> None:
    """Note a receiver; one that is known stays as it is, disabled or not."""
    statement = (
        insert(webhook_endpoints)
        .values(id=endpoint_id_of(tenant, url), tenant=tenant, url=url, host=host_of(url))
        .on_conflict_do_nothing()
    )
    connection.execute(statement)


def mint_secret() -> str:
    """Make a signing secret in the form that verifiers expect: standard base64, padded."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


class WebhookSecretRepository:
    """What each tenant's messages are signed with."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def ensure(self, tenant: str, secret: str | None = None) -> str:
        """Return a tenant's secret; one that has none gets this one, or a new one."""
        find = sa.select(webhook_secrets.c.secret).where(webhook_secrets.c.tenant == tenant)
        with self._engine.connect() as connection:
            known: str | None = connection.scalar(find)
        if known is not None:
            return known
        values = {"tenant": tenant, "secret": secret or mint_secret()}
        with self._engine.begin() as connection:
            connection.execute(insert(webhook_secrets).values(values).on_conflict_do_nothing())
            # Whoever came first has written it.
            found: str = connection.execute(find).scalar_one()
        return found

    def in_use(self, tenant: str) -> list[str]:
        """Return what a tenant's messages are signed with now, the newest first."""
        newest = self.ensure(tenant)
        query = sa.select(webhook_secrets.c.secret, webhook_secrets.c.former_secret).where(
            webhook_secrets.c.tenant == tenant, webhook_secrets.c.former_until > sa.func.now()
        )
        with self._engine.connect() as connection:
            both = connection.execute(query).one_or_none()
        return [newest] if both is None else [*both]

    def rotate(self, tenant: str) -> str:
        """Give a tenant another secret; the one before it is used too for `OVERLAP_S` more.

        One that is still used from the time before that is used no more.
        """
        secret = mint_secret()
        known = webhook_secrets.c
        statement = insert(webhook_secrets).values(tenant=tenant, secret=secret)
        statement = statement.on_conflict_do_update(
            index_elements=[known.tenant],
            set_={
                "secret": secret,
                "former_secret": known.secret,
                "former_until": sa.func.now() + timedelta(seconds=OVERLAP_S),
            },
        )
        with self._engine.begin() as connection:
            connection.execute(statement)
        return secret
