"""Receivers of what becomes of all of a tenant's jobs. Every query is scoped by tenant."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from shared.access import OVERLAP_S
from shared.db.cursor import Cursor
from shared.db.webhook_tables import deliveries, endpoint_secrets, events, webhook_endpoints
from shared.errors import Conflict, NotFound
from shared.webhook import (
    DeliveryStatus,
    DisabledReason,
    EndpointEvent,
    EventType,
    Outcome,
    host_of,
)

#: Endpoints that a tenant may have: each of them is told of each job.
MAX_ENDPOINTS = 16
#: Secrets that messages are signed with at once, the newest among them.
MAX_SECRETS = 5


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A receiver, and which events of a tenant's jobs it is told of."""

    id: str
    url: str
    events: tuple[EventType, ...]
    description: str
    created_at: datetime
    #: Since when it gets nothing; None if it does.
    disabled_at: datetime | None
    disabled_reason: DisabledReason | None


@dataclass(frozen=True, slots=True)
class EndpointChanges:
    """What shall be otherwise; None stays as it is."""

    url: str | None = None
    events: tuple[EventType, ...] | None = None
    description: str | None = None
    enabled: bool | None = None


class EndpointRepository:
    """Register, change and remove endpoints. Each method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def create(
        self,
        tenant: str,
        *,
        url: str,
        events: Sequence[EventType],
        description: str,
        secret: str,
    ) -> Endpoint:
        """Register an endpoint: it is told of what happens from now on.

        Raises:
            Conflict: The tenant has one with this URL, or as many as it may have.
        """
        values = {
            "id": _new_id("ep_"),
            "tenant": tenant,
            "url": url,
            "host": host_of(url),
            "events": list(events),
            "description": description,
        }
        with self._engine.begin() as connection:
            _lock_list(connection, tenant)
            _refuse_taken(connection, tenant, url)
            count = connection.execute(_COUNT.where(webhook_endpoints.c.tenant == tenant))
            if count.scalar_one() >= MAX_ENDPOINTS:
                raise Conflict(
                    f"{MAX_ENDPOINTS} endpoints are the limit; delete one first",
                    code="too_many_endpoints",
                )
            statement = webhook_endpoints.insert().values(values).returning(*_SHOWN)
            endpoint = _read(connection.execute(statement).one())
            connection.execute(
                endpoint_secrets.insert().values(endpoint_id=endpoint.id, secret=secret)
            )
        return endpoint

    def page(self, tenant: str, *, limit: int, after: Cursor | None) -> list[Endpoint]:
        """Read up to `limit` endpoints, newest first, that come after a cursor."""
        query = sa.select(*_SHOWN).where(webhook_endpoints.c.tenant == tenant, _IS_REGISTERED)
        if after is not None:
            place = sa.tuple_(webhook_endpoints.c.created_at, webhook_endpoints.c.id)
            query = query.where(place < sa.tuple_(after.created_at, after.id))
        query = query.order_by(
            webhook_endpoints.c.created_at.desc(), webhook_endpoints.c.id.desc()
        ).limit(limit)
        with self._engine.connect() as connection:
            return [_read(row) for row in connection.execute(query)]

    def get(self, tenant: str, endpoint_id: str) -> Endpoint:
        """Read an endpoint.

        Raises:
            NotFound: The tenant has no such endpoint.
        """
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(*_SHOWN).where(_is(tenant, endpoint_id)))
            return _read_one(row.one_or_none())

    def update(self, tenant: str, endpoint_id: str, changes: EndpointChanges) -> Endpoint:
        """Change an endpoint. What waits for one that gets disabled is dead.

        Raises:
            NotFound: The tenant has no such endpoint.
            Conflict: Another endpoint of the tenant has this URL.
        """
        values: dict[str, Any] = {}
        if changes.url is not None:
            values |= {"url": changes.url, "host": host_of(changes.url)}
        if changes.events is not None:
            values["events"] = list(changes.events)
        if changes.description is not None:
            values["description"] = changes.description
        if changes.enabled:
            values |= {"disabled_at": None, "disabled_reason": None}
        with self._engine.begin() as connection:
            if changes.url is not None:
                _lock_list(connection, tenant)
                _refuse_taken(connection, tenant, changes.url, but=endpoint_id)
            if values:
                connection.execute(
                    webhook_endpoints.update().where(_is(tenant, endpoint_id)).values(values)
                )
            query = sa.select(*_SHOWN).where(_is(tenant, endpoint_id))
            _read_one(connection.execute(query).one_or_none())
            if changes.url is not None:
                connection.execute(
                    deliveries.update()
                    .where(deliveries.c.id.in_(_waiting(endpoint_id)))
                    .values(host=host_of(changes.url))
                )
            if changes.enabled is False:
                ended = disable(connection, endpoint_id, DisabledReason.REQUESTED)
                forget_bodies(connection, ended)
            return _read(connection.execute(query).one())

    def delete(self, tenant: str, endpoint_id: str) -> None:
        """Remove an endpoint, its secrets and what was noted of deliveries to it.

        Raises:
            NotFound: The tenant has no such endpoint.
        """
        is_it = _is(tenant, endpoint_id)
        with self._engine.begin() as connection:
            # First what refers to it, in the order of those who note attempts.
            told = connection.scalars(
                deliveries.delete()
                .where(deliveries.c.endpoint_id.in_(sa.select(webhook_endpoints.c.id).where(is_it)))
                .returning(deliveries.c.event_id)
            ).all()
            statement = webhook_endpoints.delete().where(is_it).returning(webhook_endpoints.c.id)
            if connection.execute(statement).one_or_none() is None:
                raise NotFound(_MISSING)
            forget_bodies(connection, told)
            connection.execute(
                events.delete().where(events.c.id.in_(told), events.c.job_id.is_(None))
            )

    def secret(self, tenant: str, endpoint_id: str) -> str:
        """Return the newest secret of an endpoint.

        Raises:
            NotFound: The tenant has no such endpoint.
        """
        query = (
            sa.select(endpoint_secrets.c.secret)
            .join(webhook_endpoints)
            .where(_is(tenant, endpoint_id), endpoint_secrets.c.expires_at.is_(None))
        )
        with self._engine.connect() as connection:
            secret: str | None = connection.execute(query).scalar_one_or_none()
        if secret is None:
            raise NotFound(_MISSING)
        return secret

    def rotate(self, tenant: str, endpoint_id: str, secret: str) -> None:
        """Give an endpoint another secret; those before it are used too for `OVERLAP_S` more.

        Raises:
            NotFound: The tenant has no such endpoint.
            Conflict: Too many secrets are in use.
        """
        with self._engine.begin() as connection:
            _lock(connection, tenant, endpoint_id)
            of_it = endpoint_secrets.c.endpoint_id == endpoint_id
            is_over = endpoint_secrets.c.expires_at <= sa.func.now()
            connection.execute(endpoint_secrets.delete().where(of_it, is_over))
            in_use = sa.select(sa.func.count()).select_from(endpoint_secrets).where(of_it)
            if connection.execute(in_use).scalar_one() >= MAX_SECRETS:
                raise Conflict(
                    f"{MAX_SECRETS} secrets are in use; each ends 24 hours after it was replaced",
                    code="too_many_secrets",
                )
            connection.execute(
                endpoint_secrets.update()
                .where(of_it, endpoint_secrets.c.expires_at.is_(None))
                .values(expires_at=sa.func.now() + timedelta(seconds=OVERLAP_S))
            )
            connection.execute(
                endpoint_secrets.insert().values(endpoint_id=endpoint_id, secret=secret)
            )

    def test(self, tenant: str, endpoint_id: str) -> str:
        """Have an event sent that tells of no job; returns the delivery's id.

        Raises:
            NotFound: The tenant has no such endpoint.
            Conflict: It is disabled.
        """
        with self._engine.begin() as connection:
            endpoint = _lock(connection, tenant, endpoint_id)
            if endpoint.disabled_at is not None:
                raise Conflict("enable the endpoint first", code="endpoint_disabled")
            event_id = connection.execute(
                events.insert()
                .values(id=_new_id("evt_"), type=EndpointEvent.TEST)
                .returning(events.c.id)
            ).scalar_one()
            statement = (
                deliveries.insert()
                .values(
                    id=_new_id("dlv_"),
                    event_id=event_id,
                    endpoint_id=endpoint_id,
                    tenant=tenant,
                    host=host_of(endpoint.url),
                )
                .returning(deliveries.c.id)
            )
            delivery_id: str = connection.execute(statement).scalar_one()
        return delivery_id


def disable(connection: sa.Connection, endpoint_id: str, reason: DisabledReason) -> list[str]:
    """Send nothing more to a receiver; returns the events that it does not get."""
    connection.execute(
        webhook_endpoints.update()
        .where(webhook_endpoints.c.id == endpoint_id, webhook_endpoints.c.disabled_at.is_(None))
        .values(disabled_at=sa.func.now(), disabled_reason=reason)
    )
    statement = (
        deliveries.update()
        .where(deliveries.c.id.in_(_waiting(endpoint_id)))
        .values(status=DeliveryStatus.DEAD, last_outcome=Outcome.DISABLED)
        .returning(deliveries.c.event_id)
    )
    return list(connection.scalars(statement))


def forget_bodies(connection: sa.Connection, event_ids: Collection[str]) -> None:
    """Drop the bytes of events that nobody waits for: they hold a prompt and signed links."""
    waits = sa.exists().where(
        deliveries.c.event_id == events.c.id, deliveries.c.status == DeliveryStatus.PENDING
    )
    connection.execute(events.update().where(events.c.id.in_(event_ids), ~waits).values(body=None))
    connection.execute(
        deliveries.update()
        .where(
            deliveries.c.event_id.in_(event_ids),
            deliveries.c.status != DeliveryStatus.PENDING,
            deliveries.c.body.is_not(None),
        )
        .values(body=None)
    )


def _waiting(endpoint_id: str) -> sa.Select[Any]:
    """Select what waits for a receiver; one that is being recorded gets its own answer."""
    return (
        sa.select(deliveries.c.id)
        .where(
            deliveries.c.endpoint_id == endpoint_id, deliveries.c.status == DeliveryStatus.PENDING
        )
        .with_for_update(skip_locked=True)
    )


def _lock(connection: sa.Connection, tenant: str, endpoint_id: str) -> Endpoint:
    """Read an endpoint that nobody else changes until the end; jobs' events go on."""
    query = sa.select(*_SHOWN).where(_is(tenant, endpoint_id)).with_for_update(key_share=True)
    return _read_one(connection.execute(query).one_or_none())


def _lock_list(connection: sa.Connection, tenant: str) -> None:
    """Have others wait who add to the endpoints of this tenant."""
    key = sa.func.hashtextextended(f"webhook_endpoints {tenant}", 0)
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))


def _refuse_taken(
    connection: sa.Connection, tenant: str, url: str, *, but: str | None = None
) -> None:
    query = sa.select(webhook_endpoints.c.id).where(
        webhook_endpoints.c.tenant == tenant, webhook_endpoints.c.url == url, _IS_REGISTERED
    )
    taken = connection.scalar(query)
    if taken is not None and taken != but:
        raise Conflict(f"{taken} has this URL; change that one", code="endpoint_exists")


def _is(tenant: str, endpoint_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        webhook_endpoints.c.tenant == tenant,
        webhook_endpoints.c.id == endpoint_id,
        _IS_REGISTERED,
    )


def _new_id(prefix: str) -> sa.ColumnElement[str]:
    return prefix + sa.func.replace(sa.cast(sa.func.gen_random_uuid(), sa.Text), "-", "")


def _read_one(row: sa.Row[Any] | None) -> Endpoint:
    if row is None:
        raise NotFound(_MISSING)
    return _read(row)


def _read(row: sa.Row[Any]) -> Endpoint:
    return Endpoint(
        id=row.id,
        url=row.url,
        events=tuple(map(EventType, row.events)),
        description=row.description,
        created_at=row.created_at,
        disabled_at=row.disabled_at,
        disabled_reason=row.disabled_reason and DisabledReason(row.disabled_reason),
    )


_MISSING = "there is no such endpoint"
_IS_REGISTERED = webhook_endpoints.c.events.is_not(None)
_COUNT = sa.select(sa.func.count()).select_from(webhook_endpoints).where(_IS_REGISTERED)
_SHOWN = [
    webhook_endpoints.c[name]
    for name in (
        "id",
        "url",
        "events",
        "description",
        "created_at",
        "disabled_at",
        "disabled_reason",
    )
]
