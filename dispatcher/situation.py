"""Everything that can go wrong in the stores and between the processes, looked at once."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from shared.catalog import Catalog
from shared.db.diagnosis import DiagnosisRepository, Snapshot
from shared.db.migrate import is_pending
from shared.db.session import DATABASE_AWAY
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
        return Situation(
            database=self._look_at_database(),
            redis=self._look_at_redis(),
            store_trouble=self._look_at_store(),
            queues=self._queues,
        )

    def _look_at_database(self) -> DatabaseState | None:
        diagnosis = DiagnosisRepository(self._database)
        try:
            is_missing = is_pending(self._database)
            return DatabaseState(
                is_migration_missing=is_missing,
                clock_offset_s=diagnosis.clock_offset_s(self._now),
                snapshot=None if is_missing else diagnosis.look(),
            )
        except DATABASE_AWAY:
            return None

    def _look_at_redis(self) -> RedisState | None:
        try:
            return self._queue.look()
        except ServiceUnavailable:
            return None

    def _look_at_store(self) -> str | None:
        try:
            self._store.ping()
        except ServiceUnavailable as error:
            return error.detail
        return None
