"""Jobs as commands print them."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.progress import status_text
from latentq_client import Job, JobFailed


def print_json(document: object) -> None:
    """Print one document."""
    typer.echo(json.dumps(document, indent=2))


def print_job(job: Job, *, as_json: bool) -> None:
    """Print all that is worth knowing of a job."""
    if as_json:
        print_json(job.raw)
        return
    rows = {
        "id": Text(job.id),
        "status": status_text(job.status),
        "progress": Text(f"{job.progress.iteration}/{job.progress.iterations}"),
        "request": describe_request(job.request, job.preset),
    }
    request = job.request
    if request["duration_s"] is not None:
        rows["duration"] = Text(f"{request['duration_s']:g} s")
    if request["init_image"] is not None:
        region = "" if request["mask"] is None else f", where {request['mask']} is white"
        rows["start"] = Text(f"{request['init_image']} at strength {request['strength']:g}{region}")
    if request["adapters"]:
        rows["adapters"] = Text(describe_adapters(request["adapters"]))
    if job.error is not None:
        rows["error"] = Text(f"{job.error.code}: {job.error.message}")
    for artifact in job.artifacts:
        rows[f"output {artifact.index}"] = Text(artifact.url, overflow="fold")
    print_rows(rows)


def describe_adapters(adapters: Sequence[Mapping[str, Any]]) -> str:
    """Write adapters as `--adapter` takes them."""
    return ", ".join(f"{adapter['id']}:{adapter['weight']:g}" for adapter in adapters)


def describe_subject(request: Mapping[str, Any]) -> str:
    """Say what a job shall show: its prompt, as it is, or its label."""
    prompt: str | None = request["prompt"]
    return f"label {request['class_label']}" if prompt is None else prompt


def describe_request(request: Mapping[str, Any], preset: str) -> Text:
    """Say in a line how a job is made."""
    return Text(
        f"{request['model']}, {preset}: {request['sampler']} on {request['schedule']}, "
        f"{request['steps']} steps, guidance {request['guidance']:g}, seed {request['seed']}"
    )


def print_rows(rows: Mapping[str, Text]) -> None:
    """Print values beside their names."""
    table = Table(box=None, show_header=False)
    for name, value in rows.items():
        # Text, not markup: brackets in what others wrote must stay what they are.
        table.add_row(Text(name, style="bold"), value)
    Console().print(table)


def print_jobs(jobs: Sequence[Job]) -> None:
    """Print a line for each job."""
    table = Table(box=None, header_style="bold")
    # Whole, in however narrow a terminal: what is copied, and what one looks for.
    table.add_column("id", no_wrap=True, min_width=36)
    table.add_column("status", no_wrap=True, min_width=len("succeeded"))
    for name in ("done", "sampler", "schedule", "steps", "guidance", "created"):
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
            Text(" ".join(describe_subject(request).split())),
        )
    Console().print(table)


def print_attempts(runs: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print each run of a job."""
    if as_json:
        print_json(runs)
        return
    table = Table(box=None, header_style="bold")
    for name in (
        "run",
        "worker",
        "started",
        "took",
        "outcome",
        "alone",
        "from",
        "done",
        "exit reason",
    ):
        table.add_column(name, overflow="fold")
    for run in runs:
        started = datetime.fromisoformat(run["started_at"])
        took = ""
        if run["ended_at"] is not None:
            took = f"{(datetime.fromisoformat(run['ended_at']) - started).total_seconds():.1f} s"
        done = "" if run["iteration"] is None else f"{run['iteration']}/{run['iterations']}"
        values = (
            str(run["attempt"]),
            run["worker"],
            f"{started:%Y-%m-%d %H:%M:%S}",
            took,
            run["outcome"] or "running",
            "yes" if run["alone"] else "",
            "" if run["resumed_at"] is None else str(run["resumed_at"]),
            done,
            run["exit_reason"] or "",
        )
        table.add_row(*(Text(value) for value in values))
    Console().print(table)


def print_table(
    document: object,
    names: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    *,
    as_json: bool,
) -> None:
    """Print a line for each row, or the whole document."""
    if as_json:
        print_json(document)
        return
    table = Table(box=None, header_style="bold")
    for name in names:
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*(Text(_show(row[name])) for name in names))
    Console().print(table)


def tell_saved(paths: Sequence[Path]) -> None:
    """Say where files are, beside what is printed for programs."""
    for path in paths:
        Console(stderr=True).print(f"saved {path}", highlight=False, markup=False)


def fail_unless_succeeded(jobs: Sequence[Job]) -> None:
    """End the command as the first job that failed or was canceled asks.

    Raises:
        JobFailed: There is one.
    """
    for job in jobs:
        if job.status in ("failed", "canceled"):
            raise JobFailed(job)


def _show(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case _:
            return str(value)
