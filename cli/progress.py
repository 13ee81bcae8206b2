"""Watch jobs until they end: live bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import islice

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from latentq_client import Client, Job, JobHandle

#: Pause between two looks at all jobs, in seconds.
POLL_S = 0.5
#: So many jobs one request can look at.
PAGE = 100
#: In columns: a terminal of 80 has room for the demo's labels beside it.
BAR_WIDTH = 16
STYLES = {
    "queued": "dim",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "canceled": "yellow",
}


def status_text(status: str) -> Text:
    """Write a status in its color."""
    return Text(status, style=STYLES.get(status, ""))


def watch(
    client: Client,
    handles: Sequence[JobHandle],
    *,
    console: Console,
    label: Callable[[Job], str] = lambda job: job.id,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Job]:
    """Wait until all jobs have ended and return them, in order.

    Raises:
        ServiceRefused: A job is gone.
        ServiceUnreachable: Nobody answers.
    """
    jobs = [handle.data for handle in handles]
    view = _Bars(console, jobs, label) if console.is_terminal else _Lines(console, label)
    with view:
        for handle in handles:
            view.show(handle.data)
        if len(handles) == 1:
            for job in follow(handles[0]):
                view.show(job)
        while unfinished := [handle for handle in handles if not handle.is_terminal]:
            sleep(POLL_S)
            _look(client, unfinished)
            for handle in unfinished:
                view.show(handle.data)
    return [handle.data for handle in handles]


def follow(handle: JobHandle) -> Iterator[Job]:
    """Return a job whenever it has come further, by its stream of events."""
    for event in handle.events():
        if event.job is not None:
            handle.data = event.job
        elif event.progress is not None:
            handle.data = replace(handle.data, progress=event.progress)
        yield handle.data


def _look(client: Client, handles: Sequence[JobHandle]) -> None:
    """Look at jobs again: as many as are among the newest by one request."""
    newest = {job.id: job.data for job in islice(client.list(page_size=PAGE), PAGE)}
    for handle in handles:
        if handle.id in newest:
            handle.data = newest[handle.id]
        else:
            handle.refresh()


class _Bars(AbstractContextManager["_Bars"]):
    """One live bar for each job."""

    def __init__(self, console: Console, jobs: Sequence[Job], label: Callable[[Job], str]) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=BAR_WIDTH),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {
            job.id: self._progress.add_task(
                label(job), total=job.progress.iterations, status=job.status
            )
            for job in jobs
        }

    def __enter__(self) -> "_Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, job: Job) -> None:
        style = STYLES.get(job.status, "default")
        self._progress.update(
            self._tasks[job.id],
            completed=job.progress.iteration,
            status=f"[{style}]{job.status}[/]",
        )


class _Lines(nullcontext[None]):
    """A line for each change of a job's status."""

    def __init__(self, console: Console, label: Callable[[Job], str]) -> None:
        super().__init__()
        self._console = console
        self._label = label
        self._shown: dict[str, str] = {}

    def show(self, job: Job) -> None:
        if self._shown.get(job.id) != job.status:
            self._shown[job.id] = job.status
            self._console.print(f"{self._label(job)}: {job.status}", highlight=False, markup=False)
