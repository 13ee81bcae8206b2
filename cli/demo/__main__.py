"""Run the demo."""

import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cli.demo.gallery import Picture, draw_contact_sheet, write_page
from cli.demo.jobs import FIRST_SEED, JOBS
from cli.demo.stack import run_stack
from cli.progress import status_text, watch
from latentq_client import Client, ClientError, Job
from shared.errors import ConfigurationError

OUTPUT = Path("demo-output")
#: What a run before may have left there.
FILES = ("*.png", "*.wav", "*.webp")
#: One for each of two cores.
NUM_WORKERS = 2
#: Columns that the widest row of the table needs, and some.
WIDTH = 100


def main() -> int:
    """Start everything, draw, save, show, stop everything; returns the exit code."""
    console = make_console()
    started = time.monotonic()
    console.print("Starting PostgreSQL, Valkey, SeaweedFS, the API, the dispatcher and 2 workers.")
    with (
        tempfile.TemporaryDirectory(prefix="latentq-demo-") as data_dir,
        run_stack(Path(data_dir), num_workers=NUM_WORKERS) as client,
    ):
        console.print(f"Submitting {len(JOBS)} jobs.")
        jobs = [
            client.submit(job.prompt, **{"seed": FIRST_SEED + number, **job.fields})
            for number, job in enumerate(JOBS)
        ]
        numbers = {job.id: number for number, job in enumerate(jobs, start=1)}
        done = watch(client, jobs, console=console, label=lambda job: _label(numbers[job.id], job))
        pictures = save_pictures(client, done, [job.subject for job in JOBS], OUTPUT)
    console.print()
    console.print(describe(done))
    console.print()
    console.print("queue ms: the jobs waited while the workers loaded their model.")
    console.print("rows: rows in the job's forwards on average; two are its own, one if unguided.")
    console.print(f"{len(pictures)} outputs are in {OUTPUT}/: open index.html there.")
    console.print(f"Everything is stopped again, after {time.monotonic() - started:.0f} s.")
    return 0 if all(job.status == "succeeded" for job in done) else 1


def make_console() -> Console:
    """Make a console; a file or a pipe takes wider lines than a terminal may."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def save_pictures(
    client: Client, jobs: Sequence[Job], subjects: Sequence[str], folder: Path
) -> list[Picture]:
    """Fetch all outputs and save them with a contact sheet and a page; each job has a subject."""
    folder.mkdir(exist_ok=True)
    for stale in (path for kind in FILES for path in folder.glob(kind)):
        stale.unlink()
    pictures = []
    for number, (job, subject) in enumerate(zip(jobs, subjects, strict=True), start=1):
        for artifact in job.artifacts:
            request = job.request
            name = f"{number:02d}-{artifact.index}-{request['sampler']}-{request['schedule']}"
            picture = Picture(
                job=job,
                subject=subject,
                path=folder / f"{name}.{job.extension}",
                seed=artifact.seed,
                data=client.download(artifact),
                spectrogram=client.download(artifact, thumbnail=True)
                if artifact.is_sound
                else None,
            )
            picture.path.write_bytes(picture.data)
            if picture.spectrogram is not None:
                picture.look.write_bytes(picture.spectrogram)
            pictures.append(picture)
    draw_contact_sheet(pictures).save(folder / "contact-sheet.png")
    (folder / "index.html").write_text(write_page(pictures), encoding="utf-8")
    return pictures


def describe(jobs: Sequence[Job]) -> Table:
    """Sum up how each job was served."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("job", justify="right")
    for name in ("model", "preset", "sampler", "schedule"):
        table.add_column(name, overflow="fold")
    for name in ("steps", "guid-\nance", "queue\nms", "run\nms", "rows"):
        table.add_column(name, justify="right")
    table.add_column("result")
    for number, job in enumerate(jobs, start=1):
        request = job.request
        table.add_row(
            str(number),
            request["model"],
            job.preset,
            request["sampler"],
            request["schedule"],
            str(request["steps"]),
            f"{request['guidance']:g}",
            _milliseconds(job.created_at, job.started_at),
            _milliseconds(job.started_at, job.finished_at),
            f"{job.execution['mean_rows']:.1f}" if job.execution else "",
            status_text(job.status) if job.error is None else job.error.code,
        )
    return table


def _milliseconds(start: datetime | None, end: datetime | None) -> str:
    if start is None or end is None:
        return ""
    return f"{(end - start).total_seconds() * 1000:.0f}"


def _label(number: int, job: Job) -> str:
    request = job.request
    return f"{number:2d} {job.preset:9} {request['sampler']:16} {request['schedule']:11}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ClientError, ConfigurationError) as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
