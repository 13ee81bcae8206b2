"""Take back jobs whose worker was lost, and end jobs whose time is over."""

from shared.db.rescue import RescueRepository
from shared.job import JobStatus


class Rescuer:
    """Move on every job past its lease or its deadline."""

    def __init__(self, repository: RescueRepository) -> None:
        self._repository = repository

    def run_once(self) -> dict[str, JobStatus]:
        """Do it once; returns where each job went."""
        moved = self._repository.take_back_expired_leases()
        return moved | dict.fromkeys(self._repository.fail_past_deadline(), JobStatus.FAILED)
