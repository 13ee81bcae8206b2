"""Everything that can go wrong in the stores and between the processes, looked at once."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import sqlalchemy as sa

from shared.catalog import Catalog
from shared.db.diagnosis import DiagnosisRepository, Snapshot
from shared.db.migrate import is_pending
from shared.db.session import DATABASE_AWAY, explain_away
from shared.errors import ServiceUnavailable
from shared.queue import JobQueue, RedisState, queues_of
from shared.storage import ObjectStore


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """What PostgreSQL answers."""

    is_migration_missing: bool
    #: By how much the clock of this host is ahead of the database's, in seconds.
    clock_offset_s: float
    #: None where the schema is older than this code's.
    snapshot: Snapshot | None


@dataclass(frozen=True, slots=True)
class Situation:
    """What was found at one moment; None stands for a store that does not answer."""

    database: DatabaseState | None
    redis: RedisState | None
    #: What is wrong with the object store, if anything is.
    store_trouble: str | None
    #: The queues of each model of the catalog.
    queues: dict[str, list[str]]
    #: What is wrong with a store that stands as None, as far as it is known.
    database_trouble: str = "PostgreSQL does not answer"
    redis_trouble: str = "Redis does not answer"


class Observer:
    """Look at the stores, however many of them are away."""

    def __init__(
        self,
        database: sa.Engine,
        queue: JobQueue,
        store: ObjectStore,
        catalog: Catalog,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._queue = queue
        self._store = store
        self._queues = {spec.id: queues_of(spec.id) for spec in catalog}
        self._now = now

    def look(self) -> Situation:
        """Look once; takes as long as the time-outs of stores that are silent."""
        situation = Situation(None, None, self._look_at_store(), self._queues)
        try:
            situation = replace(situation, database=self._look_at_database())
        except DATABASE_AWAY as error:
            situation = replace(situation, database_trouble=explain_away(error))
        try:
            return replace(situation, redis=self._queue.look())
        except ServiceUnavailable as error:
            return replace(situation, redis_trouble=error.detail)

    def _look_at_database(self) -> DatabaseState:
        diagnosis = DiagnosisRepository(self._database)
        is_missing = is_pending(self._database)
        return DatabaseState(
            is_migration_missing=is_missing,
            clock_offset_s=diagnosis.clock_offset_s(self._now),
            snapshot=None if is_missing else diagnosis.look(),
        )

    def _look_at_store(self) -> str | None:
        try:
            self._store.ping()
        except ServiceUnavailable as error:
            return error.detail
        return None
