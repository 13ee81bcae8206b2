"""Stop a job, at once or at its worker's next step."""

import structlog

from api.services import Services
from shared.db.jobs import CancelOutcome
from shared.job import Job

log = structlog.get_logger(__name__)


def cancel(services: Services, tenant: str, job_id: str) -> tuple[Job, CancelOutcome]:
    """Cancel a queued job, or ask a running one to stop; one that has ended stays as it is.

    Raises:
        NotFound: The tenant has no such job.
    """
    job, outcome = services.jobs.request_cancel(tenant, job_id)
    services.metrics.note_cancel(outcome)
    match outcome:
        case CancelOutcome.REQUESTED:
            services.notify_cancel(job.id)
            log.info("cancel_requested", job_id=job.id)
        case CancelOutcome.CANCELED:
            log.info("job_canceled", job_id=job.id)
    return job, outcome
