"""What happened to every accepted job, and what of it must never happen.

The database writes each change of a status itself, so the history tells on all processes. `check`
is a function of a history and nothing else: it is itself tested with histories that are broken.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.db.dispatch import MIN_WINDOW, WINDOW_PER_SLOT
from shared.job import (
    MAX_LOST_ALONE,
    MAX_LOST_LEASES,
    TRANSITIONS,
    AttemptOutcome,
    JobStatus,
)
from shared.webhook import TERMINAL_EVENTS, EventType

#: How late a deadline may be kept: the dispatcher looks five times a second, if it runs.
DEADLINE_SLACK = timedelta(seconds=1)
#: Where a job may go when an attempt ends so.
_LEADS_TO = {
    AttemptOutcome.SUCCEEDED: {JobStatus.SUCCEEDED},
    AttemptOutcome.FAILED: {JobStatus.FAILED},
    AttemptOutcome.CANCELED: {JobStatus.CANCELED},
    AttemptOutcome.LOST: {JobStatus.QUEUED, JobStatus.FAILED, JobStatus.CANCELED},
    AttemptOutcome.RELEASED: {JobStatus.QUEUED, JobStatus.CANCELED},
    AttemptOutcome.UNSTORED: {JobStatus.QUEUED, JobStatus.FAILED, JobStatus.CANCELED},
}


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of a status; `source` is None at a job's birth."""

    attempt: int
    source: JobStatus | None
    target: JobStatus
    at: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    number: int
    token: str
    worker: str
    is_alone: bool
    started_at: datetime
    outcome: AttemptOutcome | None


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What the store really holds under a key."""

    sha256: str
    num_bytes: int
    #: The one that its recipe tells, which no other job of a scenario has.
    seed: int


@dataclass(frozen=True, slots=True)
class Output:
    """An artifact as the job's owner sees it."""

    key: str
    sha256: str
    num_bytes: int
    seed: int
    stored: StoredFile | None


@dataclass(frozen=True, slots=True)
class Event:
    """What a receiver shall hear, and each body that it heard with the id."""

    id: str
    type: EventType
    bodies: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class JobHistory:
    """A job's row and everything that hangs on it, each list in the order of the database."""

    status: JobStatus
    deadline_at: datetime
    lost_leases: int
    lost_alone: int
    num_outputs: int
    transitions: Sequence[Transition]
    attempts: Sequence[Attempt]
    outputs: Sequence[Output]
    #: None where nobody is to be told.
    events: Sequence[Event] | None = None


@dataclass(frozen=True, slots=True)
class QueueSample:
    """A queue at one moment."""

    queue: str
    #: Jobs marked as announced in SQL, and messages in Redis.
    announced: int
    messages: int
    #: Slots of the workers that serve it.
    slots: int


@dataclass(frozen=True, slots=True)
class History:
    """Every id that the API answered 202 with, and what became of it."""

    accepted: frozenset[str]
    jobs: Mapping[str, JobHistory]
    samples: Sequence[QueueSample] = ()


@dataclass(frozen=True, slots=True)
class Violation:
    invariant: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.subject}: {self.detail}"


def check(history: History, *, slack: timedelta = DEADLINE_SLACK) -> list[Violation]:
    """Find whatever breaks a promise; `slack` is how late deadlines may be kept."""
    found = [
        Violation("I1", job_id, "was accepted and has no row")
        for job_id in sorted(history.accepted - history.jobs.keys())
    ]
    for job_id, job in history.jobs.items():
        details = {
            "I2": _ends(job, slack),
            "I3": _losses(job),
            "I4": (*_path(job), *_attempts(job)),
            "I5": _results(job),
            "I6": _events(job),
            "I7": _stays_canceled(job),
        }
        found += [
            Violation(name, job_id, detail) for name, told in details.items() for detail in told
        ]
    return found + [Violation("I8", sample.queue, what) for sample, what in _windows(history)]


def _ends(job: JobHistory, slack: timedelta) -> Iterator[str]:
    """I2: one end, in time."""
    ends = [transition for transition in job.transitions if transition.target.is_terminal]
    if len(ends) != 1:
        yield f"has {len(ends)} ends"
    for end in ends:
        if end.at > job.deadline_at + slack:
            yield f"ended {(end.at - job.deadline_at).total_seconds():.1f} s past its deadline"


def _losses(job: JobHistory) -> Iterator[str]:
    """I3: no more attempts than allowed, and every loss is counted."""
    lost = [attempt for attempt in job.attempts if attempt.outcome is AttemptOutcome.LOST]
    if job.lost_leases > MAX_LOST_LEASES or job.lost_alone > MAX_LOST_ALONE:
        yield f"lost {job.lost_leases} leases, {job.lost_alone} of them alone"
    counted = (job.lost_leases, job.lost_alone)
    seen = (len(lost), sum(attempt.is_alone for attempt in lost))
    if counted != seen:
        yield f"counts {counted} lost leases where {seen} were lost"


def _path(job: JobHistory) -> Iterator[str]:
    """I4: every transition is legal, and begins where the one before it ended."""
    source: JobStatus | None = None
    for transition in job.transitions:
        if transition.source != source:
            yield f"went from {transition.source} when it was {source}"
        if source is not None and transition.target not in TRANSITIONS[source]:
            yield f"went from {source} to {transition.target}"
        source = transition.target
    if not job.transitions or job.transitions[0].source is not None:
        yield "has no birth"
    if source is not job.status:
        yield f"is {job.status} when it went to {source}"


def _attempts(job: JobHistory) -> Iterator[str]:
    """I4: each attempt has one claim and one end."""
    claims = [t.attempt for t in job.transitions if t.target is JobStatus.RUNNING]
    if claims != [attempt.number for attempt in job.attempts]:
        yield f"was claimed for attempts {claims}, and tells of {len(job.attempts)}"
    if claims != list(range(1, len(claims) + 1)):
        yield f"was claimed for attempts {claims}"
    ends = {t.attempt: t.target for t in job.transitions if t.source is JobStatus.RUNNING}
    for attempt in job.attempts:
        end = ends.get(attempt.number)
        if (attempt.outcome is None) != (end is None):
            yield f"left attempt {attempt.number} as {attempt.outcome} and went to {end}"
        elif attempt.outcome is not None and end not in _LEADS_TO[attempt.outcome]:
            yield f"ended attempt {attempt.number} as {attempt.outcome} and went to {end}"


def _results(job: JobHistory) -> Iterator[str]:
    """I5: what a job shows is in the store, and is this job's and this attempt's."""
    if job.status is not JobStatus.SUCCEEDED:
        if job.outputs:
            yield f"is {job.status} and shows outputs"
        return
    if len(job.outputs) != job.num_outputs:
        yield f"shows {len(job.outputs)} of {job.num_outputs} outputs"
    winners = [a for a in job.attempts if a.outcome is AttemptOutcome.SUCCEEDED]
    folders = {f"{attempt.number}-{attempt.token}" for attempt in winners}
    for output in job.outputs:
        if output.key.split("/")[2] not in folders:
            yield f"shows {output.key}, which another attempt wrote"
        told = StoredFile(output.sha256, output.num_bytes, output.seed)
        if output.stored != told:
            yield f"shows {output.key}, in whose place is {output.stored}"


def _events(job: JobHistory) -> Iterator[str]:
    """I6: the receiver hears of an end once, or the very same thing again."""
    if job.events is None:
        return
    for type_, number in Counter(event.type for event in job.events).items():
        if number > 1:
            yield f"has {number} events {type_}"
    ends = [event.type for event in job.events if event.type in TERMINAL_EVENTS]
    wanted = [f"job.{job.status}"] if job.status.is_terminal else []
    if sorted(set(ends)) != wanted:
        yield f"is {job.status} and tells of {ends}"
    for event in job.events:
        if len(set(event.bodies)) != 1:
            yield f"told of {event.type} with {len(set(event.bodies))} different bodies"


def _stays_canceled(job: JobHistory) -> Iterator[str]:
    """I7: nothing runs after a cancel."""
    for end in job.transitions:
        if end.target is JobStatus.CANCELED:
            late = [a.number for a in job.attempts if a.started_at > end.at]
            late += [t.attempt for t in job.transitions if t.at > end.at]
            if late:
                yield f"went on after it was canceled, attempts {sorted(set(late))}"


def _windows(history: History) -> Iterator[tuple[QueueSample, str]]:
    """I8: Redis never holds more than a window.

    Sent again, a window may be there twice. Messages of jobs that ended in the queue stay until a
    worker drops them.
    """
    ended = sum(
        transition.source is JobStatus.QUEUED and transition.target.is_terminal
        for job in history.jobs.values()
        for transition in job.transitions
    )
    for _, samples in itertools.groupby(
        sorted(history.samples, key=lambda sample: sample.queue), key=lambda sample: sample.queue
    ):
        seen = list(samples)
        # A worker that went away leaves its part of the window behind.
        window = max(MIN_WINDOW, WINDOW_PER_SLOT * max(sample.slots for sample in seen))
        for sample in seen:
            if sample.announced > window:
                yield sample, f"has {sample.announced} jobs announced, its window is {window}"
            if sample.messages > 2 * window + ended:
                yield sample, f"holds {sample.messages} messages, its window is {window}"
