import structlog
from celery.signals import task_postrun, task_prerun
from structlog.contextvars import get_contextvars

from worker.consumer import name_jobs_in_logs


def test_the_lines_of_celery_itself_name_the_job() -> None:
    name_jobs_in_logs()
    name_jobs_in_logs()
    with structlog.contextvars.bound_contextvars():
        task_prerun.send(sender=None, kwargs={"job_id": "job_1", "parameters": {}})
        assert get_contextvars() == {"job_id": "job_1"}
        task_postrun.send(sender=None)
        assert get_contextvars() == {}
