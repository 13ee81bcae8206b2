"""`python -m evals.job_life_page`: write the page of a job's life from the table of transitions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from shared.job import (
    MAX_LOST_ALONE,
    MAX_LOST_LEASES,
    SUSPECTED_AFTER,
    TRANSITIONS,
    JobStatus,
)

PAGE = Path("docs/explanation/job-life.md")


@dataclass(frozen=True, slots=True)
class Edge:
    """Why a job goes from one state to another."""

    #: A few words, for the diagram.
    label: str
    #: Who takes it, and under which condition.
    reason: str


EDGES: Mapping[tuple[JobStatus, JobStatus], Edge] = {
    (JobStatus.QUEUED, JobStatus.RUNNING): Edge(
        "claimed",
        "A worker claims the job that a message told it of, if it is still queued and its deadline "
        "has not passed. It gets a lease with a new token, and the job a new attempt.",
    ),
    (JobStatus.QUEUED, JobStatus.FAILED): Edge(
        "deadline passed",
        "The dispatcher ends the job with `deadline_exceeded` when its deadline passes, with zero "
        "workers too.",
    ),
    (JobStatus.QUEUED, JobStatus.CANCELED): Edge(
        "canceled", "The API cancels it at once when its owner asks."
    ),
    (JobStatus.RUNNING, JobStatus.QUEUED): Edge(
        "handed back or lost",
        "The worker hands the job back when it is told to stop; that counts for nothing. Or its "
        "lease ran out and the dispatcher takes the job back, which counts as a loss. After "
        f"{SUSPECTED_AFTER} losses the job runs alone in its worker.",
    ),
    (JobStatus.RUNNING, JobStatus.SUCCEEDED): Edge(
        "results committed",
        "The worker commits the results, if the job still carries its token. They are in the store "
        "before, and visible from here on.",
    ),
    (JobStatus.RUNNING, JobStatus.FAILED): Edge(
        "error, deadline or too many losses",
        "The worker reports why it cannot be done, if the job still carries its token. Or the "
        "dispatcher ends it: with `deadline_exceeded` when its deadline passes, with `worker_lost` "
        f"when it lost its worker {MAX_LOST_ALONE} times alone or {MAX_LOST_LEASES} times in all.",
    ),
    (JobStatus.RUNNING, JobStatus.CANCELED): Edge(
        "stopped as its owner asked",
        "The owner asked, and the worker has stopped at its next step. Or the dispatcher takes the "
        "job back from a worker that was lost, or a worker hands it back, and it had been asked.",
    ),
}

_INTRODUCTION = """\
# The life of a job

A job is a row, and its state a column. Every change is one statement that names the state it
starts from and takes the time from PostgreSQL's clock, so that two who want to change a job
cannot both succeed. A trigger writes each change to the table `transitions`
([ADR 7](../adr/0007-the-database-writes-the-history.md)).
"""
_REST = """\
## What is no state

- That a message about the job is in Redis is the column `dispatched_at` of a queued one. Messages
  are lost, late and doubled without harm: the claim decides ([Celery and Redis](celery.md)).
- The wish to cancel is the column `cancel_requested_at`. A running job goes on until its worker has
  heard of it.
- A lease is the pair of `lease_token` and `lease_until`. A worker prolongs the leases of all its
  jobs together, and gives a job up by itself before its lease can have run out unseen.
- A job that has ended never changes again. It is deleted by its owner, or when it was
  [kept long enough](../how-to/keep-and-delete.md); its transitions stay.
"""


def main(output: Annotated[Path, typer.Option(help="Where to write it.")] = PAGE) -> None:
    """Write the page."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render())
    print(f"wrote {output}")  # noqa: T201


def render() -> str:
    """Write the whole page as markdown."""
    rows = [f"| {here} | {there} | {EDGES[here, there].reason} |\n" for here, there in edges()]
    return (
        f"{_INTRODUCTION}\n"
        "Diagram and table come from `shared/job.py`, by `python -m evals.job_life_page`.\n\n"
        f"```mermaid\n{draw()}\n```\n\n"
        "| from | to | who takes it, and when |\n|---|---|---|\n"
        f"{''.join(rows)}\n{_REST}"
    )


def draw() -> str:
    """Draw the table of transitions for mermaid."""
    lines = [
        f"    [*] --> {JobStatus.QUEUED}: accepted",
        *(f"    {here} --> {there}: {EDGES[here, there].label}" for here, there in edges()),
        *(f"    {status} --> [*]" for status in JobStatus if status.is_terminal),
    ]
    return "\n".join(["stateDiagram-v2", *lines])


def edges() -> list[tuple[JobStatus, JobStatus]]:
    """List every transition, in the order in which the states are declared."""
    return [
        (here, there) for here in JobStatus for there in JobStatus if there in TRANSITIONS[here]
    ]


if __name__ == "__main__":
    typer.run(main)
