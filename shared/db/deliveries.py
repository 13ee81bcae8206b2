"""Deliveries as their sender sees them: claimed for a time, every write fenced by the attempt."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from shared.db.endpoints import disable, forget_bodies
from shared.db.webhook_tables import deliveries, delivery_attempts, events
from shared.webhook import (
    DeliveryStatus,
    DisabledReason,
    EndpointEvent,
    EventType,
    Outcome,
    read_event_type,
)


@dataclass(frozen=True, slots=True)
class DeliveryClaim:
    """One attempt to deliver an event, to be made now."""

    id: str
    #: The number of the attempt, counted from 1; it fences what is written of it.
    attempt: int
    #: The same since the event, or since the owner asked for another round.
    tries: int
    tenant: str
    host: str
    url: str
    endpoint_id: str
    #: What the receiver's own messages are signed with, the newest first; none if a job named it.
    secrets: tuple[str, ...] = field(repr=False)
    event_id: str
    #: None for an event that an endpoint is tried with.
    job_id: str | None
    type: EventType | EndpointEvent
    occurred_at: datetime
    #: The receiver gets the job as a prediction of Replicate's API.
    is_prediction: bool
    #: What was sent before; None at the first attempt.
    body: bytes | None
    #: What spans of its job continue; None where nobody traced that.
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """How an attempt ended."""

    outcome: Outcome
    #: What the receiver answered, if it did.
    status_code: int | None
    duration: timedelta


_CLAIM = sa.text("""
WITH RECURSIVE hosts AS (
    -- One index probe for each host that has something to get, however much that is.
    (SELECT host FROM deliveries WHERE status = 'pending' ORDER BY host LIMIT 1)
    UNION ALL
    SELECT (SELECT deliveries.host FROM deliveries
             WHERE status = 'pending' AND deliveries.host > hosts.host
             ORDER BY deliveries.host LIMIT 1)
      FROM hosts WHERE hosts.host IS NOT NULL
), due AS (
    SELECT head.id FROM hosts
      LEFT JOIN unnest(:hosts, :rooms) AS known (host, room) ON known.host = hosts.host
     CROSS JOIN LATERAL (
        SELECT id, next_attempt_at FROM deliveries
         WHERE status = 'pending' AND deliveries.host = hosts.host AND next_attempt_at <= now()
         ORDER BY next_attempt_at, id LIMIT coalesce(known.room, :per_host)
     ) AS head
     ORDER BY head.next_attempt_at, head.id LIMIT :limit
), locked AS (
    SELECT id FROM deliveries
     WHERE id IN (SELECT id FROM due) AND status = 'pending' AND next_attempt_at <= now()
       FOR UPDATE SKIP LOCKED
)
UPDATE deliveries
   SET attempts = attempts + enabled::int, tries = tries + enabled::int,
       next_attempt_at = now() + :lease,
       -- Written while its receiver was being disabled.
       status = CASE WHEN enabled THEN status ELSE 'dead' END,
       last_outcome = CASE WHEN enabled THEN last_outcome ELSE 'disabled' END
  FROM events, webhook_endpoints, LATERAL (
           SELECT disabled_at IS NULL AS enabled,
                  EXISTS (SELECT FROM jobs
                           WHERE jobs.id = job_id AND jobs.endpoint_id = webhook_endpoints.id
                             AND jobs.webhook ? 'prediction') AS is_prediction
       ) AS receiver
 WHERE deliveries.id IN (SELECT id FROM locked)
   AND events.id = event_id AND webhook_endpoints.id = endpoint_id
RETURNING deliveries.id, attempts, tries, deliveries.tenant, deliveries.host, url, endpoint_id,
          ARRAY(SELECT secret FROM endpoint_secrets
                 WHERE endpoint_secrets.endpoint_id = webhook_endpoints.id
                   AND coalesce(expires_at > now(), true)
                 ORDER BY expires_at DESC NULLS FIRST) AS secrets,
          event_id, job_id, type, events.created_at, enabled, is_prediction,
          (SELECT traceparent FROM jobs WHERE jobs.id = job_id) AS traceparent,
          CASE WHEN is_prediction THEN deliveries.body ELSE events.body END AS body
""").bindparams(
    sa.bindparam("hosts", type_=ARRAY(sa.Text)),
    sa.bindparam("rooms", type_=ARRAY(sa.Integer)),
    sa.bindparam("lease", type_=sa.Interval),
)


class DeliveryRepository:
    """Claim deliveries and note what came of them. Each method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def claim(
        self, *, limit: int, per_host: int, rooms: Mapping[str, int], lease_s: float
    ) -> list[DeliveryClaim]:
        """Take up to `limit` deliveries that are due, the longest due first.

        A host gets `per_host` of them at most, or what `rooms` says. Nobody else takes them before
        the lease is over; then they are due again. What waits for a disabled receiver is dead.
        """
        values = {
            "limit": limit,
            "per_host": per_host,
            "hosts": list(rooms),
            "rooms": list(rooms.values()),
            "lease": timedelta(seconds=lease_s),
        }
        with self._engine.begin() as connection:
            rows = connection.execute(_CLAIM, values).all()
            if ended := [row.event_id for row in rows if not row.enabled]:
                forget_bodies(connection, ended)
        return [_read(row) for row in rows if row.enabled]

    def keep_body(self, claim: DeliveryClaim, body: bytes) -> bytes:
        """Keep what is sent; returns what was kept first, which all attempts send.

        All receivers of an event share it, but for those that get predictions.
        """
        table = deliveries if claim.is_prediction else events
        statement = (
            table.update()
            .where(table.c.id == (claim.id if claim.is_prediction else claim.event_id))
            .values(body=sa.func.coalesce(table.c.body, body))
            .returning(table.c.body)
        )
        with self._engine.begin() as connection:
            kept: bytes = connection.execute(statement).scalar_one()
        return kept

    def record(
        self, claim: DeliveryClaim, attempt: Attempt, *, retry_in_s: float | None
    ) -> DeliveryStatus | None:
        """Note an attempt, and when the next one is due; None if there shall be none.

        Returns:
            Where the delivery stands; None if a later attempt has begun meanwhile.
        """
        # One that died meanwhile, its receiver being gone, is not tried again.
        status: Any = deliveries.c.status
        if attempt.outcome is Outcome.ACCEPTED:
            status = DeliveryStatus.DELIVERED
        elif retry_in_s is None:
            status = DeliveryStatus.DEAD
        pause = timedelta(seconds=retry_in_s or 0)
        statement = (
            deliveries.update()
            .where(deliveries.c.id == claim.id, deliveries.c.attempts == claim.attempt)
            .values(
                status=status,
                last_outcome=attempt.outcome,
                next_attempt_at=sa.func.now() + pause,
            )
            .returning(deliveries.c.endpoint_id, deliveries.c.status)
        )
        with self._engine.begin() as connection:
            row = connection.execute(statement).one_or_none()
            if row is None:
                return None
            connection.execute(
                delivery_attempts.insert().values(
                    delivery_id=claim.id,
                    attempt=claim.attempt,
                    started_at=sa.func.now() - attempt.duration,
                    ended_at=sa.func.now(),
                    outcome=attempt.outcome,
                    status_code=attempt.status_code,
                )
            )
            ended = [claim.event_id]
            if attempt.outcome is Outcome.GONE:
                ended += disable(connection, row.endpoint_id, DisabledReason.GONE)
            forget_bodies(connection, ended)
        return DeliveryStatus(row.status)


def _read(row: sa.Row[Any]) -> DeliveryClaim:
    return DeliveryClaim(
        id=row.id,
        attempt=row.attempts,
        tries=row.tries,
        tenant=row.tenant,
        host=row.host,
        url=row.url,
        endpoint_id=row.endpoint_id,
        secrets=tuple(row.secrets),
        event_id=row.event_id,
        job_id=row.job_id,
        type=read_event_type(row.type),
        occurred_at=row.created_at,
        is_prediction=row.is_prediction,
        body=row.body,
        traceparent=row.traceparent,
    )
