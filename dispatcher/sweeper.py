"""Delete results that nobody can see: their worker lost its lease before it was done."""

import structlog

from shared.db.retention import RetentionRepository, StoredResult
from shared.errors import StorageUnavailable
from shared.storage import RESULTS_PREFIX, ObjectStore, parse_artifact_key

#: Pause between two rounds, each over one page of the store's list, in seconds.
INTERVAL_S = 30.0
#: How old a result must be, in seconds. The leases decide what goes; this keeps those who look
#: into the store after a failure from finding it swept already.
GRACE_S = 3600.0

log = structlog.get_logger(__name__)


class Sweeper:
    """Go through the store's list of results, a page each round, over and over."""

    def __init__(self, retention: RetentionRepository, store: ObjectStore) -> None:
        self._retention = retention
        self._store = store
        #: Where the next page begins; None for the start of the list.
        self._place: str | None = None

    def run_once(self) -> None:
        """Do one page; a store that is away is swept from the start when it is back.

        Raises:
            OperationalError: PostgreSQL is away.
        """
        place, self._place = self._place, None
        try:
            objects, place = self._store.list_page(RESULTS_PREFIX, place=place)
            results = [
                StoredResult(found.key, *parsed, found.modified_at)
                for found in objects
                if (parsed := parse_artifact_key(found.key)) is not None
            ]
            orphans = self._retention.find_orphans(results, older_than_s=GRACE_S)
            if orphans:
                self._store.delete(orphans)
                log.info("orphans_deleted", count=len(orphans))
        except StorageUnavailable as error:
            log.warning("storage_away", detail=error.detail)
        else:
            self._place = place
