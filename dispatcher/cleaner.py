"""Delete what is kept no longer."""

import structlog

from shared.db.deletions import DeletionRepository
from shared.errors import StorageUnavailable
from shared.storage import ObjectStore, results_prefix

#: Pause between two rounds, in seconds.
INTERVAL_S = 5.0
#: Jobs whose objects one round deletes at most.
MAX_JOBS = 200
#: After how long the store is asked again to delete a job's objects, in seconds.
RETRY_AFTER_S = 60.0

log = structlog.get_logger(__name__)


class Cleaner:
    """Delete old jobs, and objects that nobody needs. Any number of copies may run.

    Every round is bounded, and what one leaves the next one finds.
    """

    def __init__(self, deletions: DeletionRepository, store: ObjectStore) -> None:
        self._deletions = deletions
        self._store = store

    def run_once(self) -> None:
        """Do one round; a store that is away keeps its objects until it is back.

        Raises:
            OperationalError: PostgreSQL is away.
        """
        try:
            self._delete_results()
        except StorageUnavailable as error:
            log.warning("storage_away", detail=error.detail)

    def _delete_results(self) -> None:
        """Delete the objects of jobs that are no more.

        Raises:
            StorageUnavailable: The store did not delete some; they come up again later.
        """
        for _ in range(MAX_JOBS):
            job_id = self._deletions.take_due(retry_after_s=RETRY_AFTER_S)
            if job_id is None:
                return
            self._store.delete_prefix(results_prefix(job_id))
            self._deletions.finish(job_id)
            log.info("results_deleted", job_id=job_id)
