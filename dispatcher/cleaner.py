"""Delete what is kept no longer."""

import structlog

from shared.db.deletions import DeletionRepository
from shared.db.retention import RetentionRepository
from shared.errors import StorageUnavailable
from shared.storage import (
    ObjectStore,
    checkpoints_prefix,
    incoming_key,
    results_prefix,
    upload_key,
)

#: Pause between two rounds, in seconds.
INTERVAL_S = 5.0
#: Jobs, and uploads, whose objects one round deletes at most.
MAX_DELETIONS = 200
#: After how long the store is asked again to delete a job's objects, in seconds.
RETRY_AFTER_S = 60.0
#: How long after the end of its link a file may be on its way or be completed, in seconds.
INCOMING_S = 3600.0
#: How long the row of a worker or dispatcher that fell silent is kept, in seconds.
MEMORY_S = 3600.0

log = structlog.get_logger(__name__)


class Cleaner:
    """Delete old jobs and uploads, and the objects of those that are no more.

    Any number of copies may run. Every round is bounded; what one leaves the next one finds.
    """

    def __init__(
        self,
        retention: RetentionRepository,
        deletions: DeletionRepository,
        store: ObjectStore,
        *,
        retention_s: float,
        upload_retention_s: float,
    ) -> None:
        self._retention = retention
        self._deletions = deletions
        self._store = store
        self._retention_s = retention_s
        self._upload_retention_s = upload_retention_s

    def run_once(self) -> None:
        """Do one round: SQL first, so that a store that is away keeps its objects and no more.

        Raises:
            OperationalError: PostgreSQL is away.
        """
        for job_id in self._retention.delete_ended_jobs(older_than_s=self._retention_s):
            log.info("job_deleted", job_id=job_id)
        self._retention.delete_tests(older_than_s=self._retention_s)
        self._retention.expire_uploads(older_than_s=self._upload_retention_s)
        for silent in self._retention.forget_silent(silent_for_s=MEMORY_S):
            log.info("process_forgotten", id=silent)
        try:
            self._delete_results()
            self._delete_uploads()
            self._delete_incoming()
        except StorageUnavailable as error:
            log.warning("storage_away", detail=error.detail)

    def _delete_results(self) -> None:
        """Delete the objects of jobs that are no more.

        Raises:
            StorageUnavailable: The store kept some; they come up again, behind the others.
        """
        for _ in range(MAX_DELETIONS):
            job_id = self._deletions.take_due(retry_after_s=RETRY_AFTER_S)
            if job_id is None:
                return
            for prefix in (results_prefix(job_id), checkpoints_prefix(job_id)):
                self._store.delete_prefix(prefix)
            self._deletions.finish(job_id)
            log.info("results_deleted", job_id=job_id)

    def _delete_uploads(self) -> None:
        """Delete uploads that jobs cannot start from any more.

        Raises:
            StorageUnavailable: The store kept one; it comes up again.
        """
        for _ in range(MAX_DELETIONS):
            with self._retention.deleting_upload(older_than_s=self._upload_retention_s) as expired:
                if expired is None:
                    return
                tenant, upload_id = expired
                self._store.delete([upload_key(tenant, upload_id)])
            log.info("upload_deleted", upload_id=upload_id)

    def _delete_incoming(self) -> None:
        """Delete files that clients brought and did not complete, and what is left of others.

        Raises:
            StorageUnavailable: The store kept one; it comes up again.
        """
        for _ in range(MAX_DELETIONS):
            with self._retention.deleting_incoming(older_than_s=INCOMING_S) as expired:
                if expired is None:
                    return
                self._store.delete([incoming_key(*expired)])
