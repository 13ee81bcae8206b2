"""What a key may still take, counted from rows in the transaction that stores a job."""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from shared.db.tables import jobs, key_usage
from shared.errors import QuotaExceeded
from shared.job import JobStatus, NewJob

#: How soon a place may be free again that jobs hold, in seconds.
RETRY_AFTER_S = 5
#: The longest that anybody is told to wait: clients of other APIs give up beyond it, in seconds.
MAX_RETRY_AFTER_S = 120

_TODAY = sa.cast(sa.func.timezone("UTC", sa.func.now()), sa.Date)


def take_quota(connection: sa.Connection, together: Sequence[NewJob]) -> None:
    """Count jobs against the limits of the key that they come with, before they are stored.

    Those who submit with one key take turns from here until their transactions end: what the one
    counts, the next one sees. A replay counts nothing, and a key without such limits costs nothing.

    Raises:
        QuotaExceeded: They would be too many.
    """
    new = together[0]
    limits = new.limits
    if not limits.counts_jobs or new.key_id is None:
        return
    # A statement of its own: the next one must see what the last holder has committed.
    connection.execute(_lock(new.key_id))
    if new.idempotency_key is not None and connection.scalar(_is_known(new)):
        return
    if limits.max_active is not None or limits.max_queued is not None:
        counted = connection.execute(_count(new.key_id)).one()
        _refuse_over("max_active", counted.active + len(together), limits.max_active)
        _refuse_over("max_queued", counted.queued + len(together), limits.max_queued)
    if limits.daily_megapixel_iterations is not None:
        _spend(
            connection,
            new.key_id,
            sum(job.request.megapixel_iterations for job in together),
            limits.daily_megapixel_iterations,
        )


def _lock(key_id: str) -> sa.Select[None]:
    return sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(f"quota of {key_id}")))


def _is_known(new: NewJob) -> sa.Select[bool]:
    return sa.select(
        sa.exists().where(
            jobs.c.tenant == new.tenant, jobs.c.idempotency_key == new.idempotency_key
        )
    )


def _count(key_id: str) -> sa.Select[int, int]:
    return sa.select(
        sa.func.count().label("active"),
        sa.func.count().filter(jobs.c.status == JobStatus.QUEUED).label("queued"),
    ).where(jobs.c.key_id == key_id, jobs.c.status.in_([JobStatus.QUEUED, JobStatus.RUNNING]))


def _refuse_over(policy: str, count: int, limit: int | None) -> None:
    if limit is not None and count > limit:
        what = "waiting" if policy == "max_queued" else "waiting or running"
        raise QuotaExceeded(
            f"this key may have {limit:,} jobs {what} at once",
            policies=[policy],
            retry_after_s=RETRY_AFTER_S,
        )


def _spend(connection: sa.Connection, key_id: str, cost: float, budget: float) -> None:
    """Add to what a key has taken today, unless that would be more than its budget."""
    values = {"key_id": key_id, "day": _TODAY, "megapixel_iterations": cost}
    new_row = insert(key_usage).values(values)
    total = key_usage.c.megapixel_iterations + new_row.excluded.megapixel_iterations
    statement = new_row.on_conflict_do_update(
        index_elements=["key_id", "day"],
        set_={"megapixel_iterations": total},
        where=total <= budget,
    ).returning(sa.literal(1))
    if cost <= budget and connection.scalar(statement) is not None:
        return
    now: datetime = connection.execute(sa.select(sa.func.now())).scalar_one()
    raise QuotaExceeded(
        f"this key may take {budget:,g} megapixel-iterations a day (UTC); this needs {cost:,g}",
        policies=["daily_megapixel_iterations"],
        retry_after_s=min(_until_midnight_s(now), MAX_RETRY_AFTER_S),
    )


def _until_midnight_s(now: datetime) -> int:
    today = now.astimezone(UTC).date()
    midnight = datetime.combine(today + timedelta(days=1), time(), UTC)
    return max(1, int((midnight - now).total_seconds()))
