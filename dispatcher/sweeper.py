"""Delete results that nobody can see, and states that no job will go on from.

Their worker lost its lease before it was done, or had no time to delete them itself.
"""

from collections.abc import Callable

import structlog

from shared.db.retention import RetentionRepository, StoredResult
from shared.errors import StorageUnavailable
from shared.storage import CHECKPOINTS_PREFIX, RESULTS_PREFIX, ObjectStore, parse_attempt_key

#: Pause between two rounds, each over one page of the store's lists, in seconds.
INTERVAL_S = 30.0
#: How old a result must be, in seconds. The leases decide what goes; this keeps those who look
#: into the store after a failure from finding it swept already.
GRACE_S = 3600.0

log = structlog.get_logger(__name__)


class Sweeper:
    """Go through the store's lists of results and states, a page of each every round."""

    def __init__(self, retention: RetentionRepository, store: ObjectStore) -> None:
        self._retention = retention
        self._store = store
        #: Where the next page of each list begins; None for its start.
        self._places: dict[str, str | None] = {}

    def run_once(self) -> None:
        """Do one page of each; a store that is away is swept from the start when it is back.

        Raises:
            OperationalError: PostgreSQL is away.
        """
        try:
            self._sweep(RESULTS_PREFIX, self._retention.find_orphans)
            self._sweep(CHECKPOINTS_PREFIX, self._retention.find_useless)
        except StorageUnavailable as error:
            log.warning("storage_away", detail=error.detail)

    def _sweep(self, prefix: str, find: Callable[..., list[str]]) -> None:
        objects, place = self._store.list_page(prefix, place=self._places.pop(prefix, None))
        results = [
            StoredResult(found.key, *parsed, found.modified_at)
            for found in objects
            if (parsed := parse_attempt_key(found.key)) is not None
        ]
        orphans = find(results, older_than_s=GRACE_S)
        if orphans:
            self._store.delete(orphans)
            log.info("orphans_deleted", prefix=prefix, count=len(orphans))
        self._places[prefix] = place
