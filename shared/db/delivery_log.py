"""Deliveries as the owner of the jobs sees them. Every query is scoped by tenant."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from shared.db.cursor import Cursor
from shared.db.webhook_tables import deliveries, delivery_attempts, events, webhook_endpoints
from shared.errors import Conflict, NotFound
from shared.webhook import DeliveryStatus, EndpointEvent, EventType, Outcome, read_event_type


@dataclass(frozen=True, slots=True)
class LoggedAttempt:
    """One attempt to deliver."""

    attempt: int
    started_at: datetime
    ended_at: datetime
    outcome: Outcome
    status_code: int | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event on its way to a receiver."""

    id: str
    event_id: str
    endpoint_id: str
    #: None for an event that an endpoint is tried with.
    job_id: str | None
    type: EventType | EndpointEvent
    host: str
    status: DeliveryStatus
    last_outcome: Outcome | None
    #: When it is tried next; None unless pending.
    next_attempt_at: datetime | None
    created_at: datetime
    attempts: tuple[LoggedAttempt, ...]


@dataclass(frozen=True, slots=True)
class DeliveryFilters:
    """Which deliveries a list shows; None means any."""

    status: DeliveryStatus | None = None
    job_id: str | None = None
    endpoint_id: str | None = None


class DeliveryLog:
    """Read deliveries, and ask for another round. Each method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def page(
        self, tenant: str, *, limit: int, after: Cursor | None, filters: DeliveryFilters
    ) -> list[Delivery]:
        """Read up to `limit` deliveries, newest first, that come after a cursor."""
        query = _SELECT.where(deliveries.c.tenant == tenant)
        if filters.status is not None:
            query = query.where(deliveries.c.status == filters.status)
        if filters.job_id is not None:
            query = query.where(events.c.job_id == filters.job_id)
        if filters.endpoint_id is not None:
            query = query.where(deliveries.c.endpoint_id == filters.endpoint_id)
        if after is not None:
            query = query.where(
                sa.tuple_(deliveries.c.created_at, deliveries.c.id)
                < sa.tuple_(after.created_at, after.id)
            )
        query = query.order_by(deliveries.c.created_at.desc(), deliveries.c.id.desc()).limit(limit)
        with self._engine.connect() as connection:
            return _read(connection, connection.execute(query).all())

    def get(self, tenant: str, delivery_id: str) -> Delivery:
        """Read a delivery.

        Raises:
            NotFound: The tenant has no such delivery.
        """
        query = _SELECT.where(deliveries.c.tenant == tenant, deliveries.c.id == delivery_id)
        with self._engine.connect() as connection:
            found = _read(connection, connection.execute(query).all())
        if not found:
            raise NotFound("there is no such delivery")
        return found[0]

    def redeliver(self, tenant: str, delivery_id: str) -> Delivery:
        """Begin another round of tries now, whatever became of the ones before.

        A receiver that a job named is disabled no more.

        Raises:
            NotFound: The tenant has no such delivery.
            Conflict: Its endpoint is disabled, which the owner of that has to change.
        """
        statement = (
            deliveries.update()
            .where(deliveries.c.tenant == tenant, deliveries.c.id == delivery_id)
            .values(status=DeliveryStatus.PENDING, tries=0, next_attempt_at=sa.func.now())
            .returning(deliveries.c.endpoint_id)
        )
        with self._engine.begin() as connection:
            endpoint_id = connection.execute(statement).scalar_one_or_none()
            if endpoint_id is None:
                raise NotFound("there is no such delivery")
            connection.execute(
                webhook_endpoints.update()
                .where(webhook_endpoints.c.id == endpoint_id, webhook_endpoints.c.events.is_(None))
                .values(disabled_at=None, disabled_reason=None)
            )
            is_disabled = sa.select(webhook_endpoints.c.disabled_at.is_not(None)).where(
                webhook_endpoints.c.id == endpoint_id
            )
            if connection.scalar(is_disabled):
                raise Conflict("enable the endpoint first", code="endpoint_disabled")
            rows = connection.execute(_SELECT.where(deliveries.c.id == delivery_id)).all()
            (delivery,) = _read(connection, rows)
        return delivery


_SELECT = sa.select(deliveries, events.c.job_id, events.c.type).join(events)


def _read(connection: sa.Connection, rows: Iterable[sa.Row[Any]]) -> list[Delivery]:
    rows = list(rows)
    attempts: dict[str, list[LoggedAttempt]] = {row.id: [] for row in rows}
    query = (
        sa.select(delivery_attempts)
        .where(delivery_attempts.c.delivery_id.in_(attempts))
        .order_by(delivery_attempts.c.delivery_id, delivery_attempts.c.attempt)
    )
    for row in connection.execute(query):
        attempts[row.delivery_id].append(
            LoggedAttempt(
                row.attempt, row.started_at, row.ended_at, Outcome(row.outcome), row.status_code
            )
        )
    return [
        Delivery(
            id=row.id,
            event_id=row.event_id,
            endpoint_id=row.endpoint_id,
            job_id=row.job_id,
            type=read_event_type(row.type),
            host=row.host,
            status=DeliveryStatus(row.status),
            last_outcome=row.last_outcome and Outcome(row.last_outcome),
            next_attempt_at=(row.next_attempt_at if row.status == DeliveryStatus.PENDING else None),
            created_at=row.created_at,
            attempts=tuple(attempts[row.id]),
        )
        for row in rows
    ]
