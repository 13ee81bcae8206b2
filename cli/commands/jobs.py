"""`latentq get`, `ls`, `watch`, `cancel`, `retry`, `rm`."""

from typing import Annotated

import typer

from cli.completion import complete_models, complete_presets
from cli.connection import ApiKeyOption, JsonOption, UrlOption, connect
from cli.preview import PreviewOption, PreviewStyle
from cli.printing import (
    fail_unless_succeeded,
    print_attempts,
    print_job,
    print_jobs,
    print_json,
)
from cli.watching import watch_until_end

JobId = Annotated[str, typer.Argument(metavar="ID", help="A job's id.")]


def get(
    job_id: JobId,
    attempts: Annotated[
        bool, typer.Option("--attempts", help="Show each run of the job, and how it ended.")
    ] = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a job."""
    with connect(url, api_key) as client:
        if attempts:
            print_attempts(client.attempts(job_id), as_json=as_json)
        else:
            print_job(client.get(job_id).data, as_json=as_json)


def ls(  # noqa: PLR0913 - one option for each filter
    *,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 20,
    status: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Only jobs of this model.", autocompletion=complete_models),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Only jobs of this preset.", autocompletion=complete_presets),
    ] = None,
    batch: Annotated[str | None, typer.Option(help="Only jobs of this batch or sweep.")] = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    filters = {"status": status, "model": model, "preset": preset, "batch": batch}
    given = {name: value for name, value in filters.items() if value is not None}
    with connect(url, api_key) as client:
        jobs = [job.data for job, _ in zip(client.list(filters=given), range(limit), strict=False)]
    if as_json:
        print_json([job.raw for job in jobs])
    else:
        print_jobs(jobs)


def watch_jobs(
    job_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Jobs to watch.")],
    preview: PreviewOption = PreviewStyle.AUTO,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show live bars of jobs until all have ended; a single one with a picture of what it draws."""
    with connect(url, api_key) as client:
        handles = [client.get(job_id) for job_id in job_ids]
        jobs = watch_until_end(client, handles, preview=preview, quiet=as_json)
    if as_json:
        print_json([job.raw for job in jobs])
    fail_unless_succeeded(jobs)


def cancel(
    job_id: JobId,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cancel a job; one that runs stops at its next step."""
    with connect(url, api_key) as client:
        print_job(client.cancel(job_id).data, as_json=as_json)


def retry(
    job_id: JobId,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key again is the same job.")
    ] = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a failed or canceled job again, as a new job."""
    with connect(url, api_key) as client:
        again = client.retry(job_id, idempotency_key=idempotency_key)
    print_job(again.data, as_json=as_json)


def rm(
    job_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Jobs that have ended.")],
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete jobs that have ended, with their prompts and results."""
    with connect(url, api_key) as client:
        for job_id in job_ids:
            client.delete(job_id)
            if not as_json:
                typer.echo(f"deleted {job_id}")
    if as_json:
        print_json({"deleted": job_ids})
