"""`latentq submit`, `get`, `ls`, `watch`, `cancel`, `retry`, `rm`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.connection import ApiKeyOption, JsonOption, UrlOption, connect
from cli.progress import status_text, watch
from latentq_client import Client, Job, JobFailed
from shared.errors import ConfigurationError
from shared.vocab import Determinism, OutputFormat, Sampler, Schedule, ServiceClass

JobId = Annotated[str, typer.Argument(metavar="ID", help="A job's id.")]


def submit(  # noqa: PLR0913 - one option for each field of a job
    prompt: Annotated[str, typer.Argument(help="What the picture shall show.")],
    *,
    negative_prompt: Annotated[str | None, typer.Option(help="What it shall not.")] = None,
    model: Annotated[str | None, typer.Option(help="Catalog id.")] = None,
    preset: Annotated[str | None, typer.Option(help="NAME or NAME@VERSION.")] = None,
    sampler: Annotated[Sampler | None, typer.Option(help="Stepping rule.")] = None,
    schedule: Annotated[Schedule | None, typer.Option(help="Noise levels to visit.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="1 means none.")] = None,
    guidance_rescale: Annotated[float | None, typer.Option(help="0 to 1.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random if left out.")] = None,
    width: Annotated[int | None, typer.Option(help="In pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="In pixels.")] = None,
    init_image: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Picture to start from: PNG, JPEG, WebP."),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="White where the picture is made anew."),
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="How much of --init-image changes, up to 1.")
    ] = None,
    num_outputs: Annotated[int | None, typer.Option(help="1 to 8 pictures.")] = None,
    output_format: Annotated[
        OutputFormat | None, typer.Option("--format", help="File format.")
    ] = None,
    allow_undistilled: Annotated[
        bool, typer.Option("--allow-undistilled", help="lcm and tcd on any model.")
    ] = False,
    determinism: Annotated[
        Determinism | None, typer.Option(help="exact: equal bytes in any company.")
    ] = None,
    service_class: Annotated[ServiceClass | None, typer.Option(help="Which queue.")] = None,
    priority: Annotated[int | None, typer.Option(help="0 to 9, 9 first.")] = None,
    deadline_s: Annotated[
        int | None, typer.Option(help="Seconds for queue and run together.")
    ] = None,
    not_before: Annotated[
        str | None, typer.Option(help="Wait until then: 2030-01-31T12:00:00Z.")
    ] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="KEY=VALUE, repeatable.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key again is the same job.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", "--watch", help="Wait for the end, with a live bar.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="Folder to save the pictures to; waits for the end.")
    ] = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a job."""
    fields: dict[str, Any] = {
        "negative_prompt": negative_prompt,
        "model": model,
        "preset": preset,
        "sampler": sampler,
        "schedule": schedule,
        "steps": steps,
        "guidance": guidance,
        "guidance_rescale": guidance_rescale,
        "seed": seed,
        "width": width,
        "height": height,
        "strength": strength,
        "num_outputs": num_outputs,
        "output_format": output_format,
        "allow_undistilled": allow_undistilled or None,
        "determinism": determinism,
        "service_class": service_class,
        "priority": priority,
        "deadline_s": deadline_s,
        "not_before": not_before,
        "metadata": _read_metadata(metadata),
    }
    given = {name: value for name, value in fields.items() if value is not None}
    pictures = {"init_image": init_image, "mask": mask}
    with connect(url, api_key) as client:
        for name, path in pictures.items():
            if path is not None:
                given[name] = client.upload(path).id
        job = client.submit(prompt, idempotency_key=idempotency_key, **given).data
        if wait or output is not None:
            (job,) = _watch(client, [job], quiet=as_json)
        saved = _save(client, job, output) if output is not None else []
        _print_job(job, as_json=as_json)
        for path in saved:
            Console(stderr=True).print(f"saved {path}", highlight=False)
        _fail_unless_succeeded([job])


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
            _print_attempts(client.attempts(job_id), as_json=as_json)
        else:
            _print_job(client.get(job_id).data, as_json=as_json)


def ls(  # noqa: PLR0913 - one option for each filter
    *,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 20,
    status: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs of this model.")] = None,
    preset: Annotated[str | None, typer.Option(help="Only jobs of this preset.")] = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    filters = {"status": status, "model": model, "preset": preset}
    given = {name: value for name, value in filters.items() if value is not None}
    with connect(url, api_key) as client:
        jobs = [job.data for job, _ in zip(client.list(filters=given), range(limit), strict=False)]
    if as_json:
        _print_json([job.raw for job in jobs])
        return
    table = Table(box=None, header_style="bold")
    for name in ("id", "status", "done", "sampler", "schedule", "steps", "guidance", "created"):
        table.add_column(name, no_wrap=True)
    table.add_column("prompt", no_wrap=True, overflow="ellipsis")
    for job in jobs:
        request = job.request
        table.add_row(
            job.id,
            status_text(job.status),
            f"{job.progress.iteration}/{job.progress.iterations}",
            request["sampler"],
            request["schedule"],
            str(request["steps"]),
            f"{request['guidance']:g}",
            f"{job.created_at:%m-%d %H:%M:%S}",
            " ".join(request["prompt"].split()),
        )
    Console().print(table)


def watch_jobs(
    job_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Jobs to watch.")],
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show live bars of jobs until all have ended."""
    with connect(url, api_key) as client:
        jobs = _watch(client, [client.get(job_id).data for job_id in job_ids], quiet=as_json)
    if as_json:
        _print_json([job.raw for job in jobs])
    _fail_unless_succeeded(jobs)


def cancel(
    job_id: JobId,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cancel a job; one that runs stops at its next step."""
    with connect(url, api_key) as client:
        _print_job(client.cancel(job_id).data, as_json=as_json)


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
        _print_job(client.retry(job_id, idempotency_key=idempotency_key).data, as_json=as_json)


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
        _print_json({"deleted": job_ids})


def _watch(client: Client, jobs: list[Job], *, quiet: bool) -> list[Job]:
    try:
        return watch(client, jobs, console=Console(stderr=True, quiet=quiet))
    except KeyboardInterrupt:
        ids = " ".join(job.id for job in jobs)
        typer.echo(f"the service goes on; look again with: latentq watch {ids}", err=True)
        raise typer.Exit(130) from None


def _save(client: Client, job: Job, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for artifact in job.artifacts:
        path = folder / f"{job.id}-{artifact.index}.{job.extension}"
        path.write_bytes(client.download(artifact))
        paths.append(path)
    return paths


def _print_job(job: Job, *, as_json: bool) -> None:
    if as_json:
        _print_json(job.raw)
        return
    request = job.request
    rows = {
        "id": Text(job.id),
        "status": status_text(job.status),
        "progress": Text(f"{job.progress.iteration}/{job.progress.iterations}"),
        "request": Text(
            f"{request['model']}, {job.preset}: {request['sampler']} on {request['schedule']}, "
            f"{request['steps']} steps, guidance {request['guidance']:g}, seed {request['seed']}"
        ),
    }
    if request["init_image"] is not None:
        region = "" if request["mask"] is None else f", where {request['mask']} is white"
        rows["start"] = Text(f"{request['init_image']} at strength {request['strength']:g}{region}")
    if job.error is not None:
        rows["error"] = Text(f"{job.error.code}: {job.error.message}")
    for artifact in job.artifacts:
        rows[f"output {artifact.index}"] = Text(artifact.url, overflow="fold")
    table = Table(box=None, show_header=False)
    for name, value in rows.items():
        # Text, not markup: brackets in what others wrote must stay what they are.
        table.add_row(Text(name, style="bold"), value)
    Console().print(table)


def _print_attempts(runs: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    if as_json:
        _print_json(runs)
        return
    table = Table(box=None, header_style="bold")
    for name in (
        "attempt",
        "worker",
        "started",
        "ended",
        "outcome",
        "alone",
        "done",
        "exit reason",
    ):
        table.add_column(name, no_wrap=True)
    for run in runs:
        done = "" if run["iteration"] is None else f"{run['iteration']}/{run['iterations']}"
        values = (
            str(run["attempt"]),
            run["worker"],
            run["started_at"],
            run["ended_at"] or "",
            run["outcome"] or "running",
            "yes" if run["alone"] else "",
            done,
            run["exit_reason"] or "",
        )
        table.add_row(*(Text(value) for value in values))
    Console().print(table)


def _print_json(document: object) -> None:
    typer.echo(json.dumps(document, indent=2))


def _read_metadata(pairs: list[str] | None) -> dict[str, str] | None:
    if not pairs:
        return None
    metadata = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if len(metadata) != len(pairs):
        raise ConfigurationError("--metadata takes KEY=VALUE, each key once")
    return metadata


def _fail_unless_succeeded(jobs: list[Job]) -> None:
    for job in jobs:
        if job.status in ("failed", "canceled"):
            raise JobFailed(job)
