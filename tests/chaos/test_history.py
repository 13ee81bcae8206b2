"""The checker catches a history that breaks any of the promises, and passes one that keeps them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.db.dispatch import MIN_WINDOW, WINDOW_PER_SLOT
from shared.job import MAX_LOST_LEASES, AttemptOutcome, JobStatus
from shared.webhook import EventType
from tests.chaos.history import (
    Attempt,
    Event,
    History,
    JobHistory,
    Output,
    QueueSample,
    StoredFile,
    Transition,
    check,
)

BORN = datetime(2026, 1, 1, tzinfo=UTC)
QUEUED, RUNNING = JobStatus.QUEUED, JobStatus.RUNNING
SUCCEEDED, FAILED, CANCELED = JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED
FILE = StoredFile(sha256="ab", num_bytes=100, seed=7)


def after(seconds: float) -> datetime:
    return BORN + timedelta(seconds=seconds)


def path(*steps: tuple[int, JobStatus]) -> list[Transition]:
    """Make transitions, a second apart, out of (attempt, status)."""
    sources = [None, *(status for _, status in steps)]
    return [
        Transition(attempt, source, status, after(second))
        for second, ((attempt, status), source) in enumerate(zip(steps, sources, strict=False))
    ]


def attempt(number: int, outcome: AttemptOutcome | None, *, started: float, **more: Any) -> Attempt:
    return Attempt(
        number, f"token-{number}", "w", more.get("alone", False), after(started), outcome
    )


def output(key: str, stored: StoredFile | None = FILE) -> Output:
    return Output(key, FILE.sha256, FILE.num_bytes, FILE.seed, stored)


#: Lost its worker once, and then succeeded.
GOOD = JobHistory(
    status=SUCCEEDED,
    deadline_at=after(60),
    lost_leases=1,
    lost_alone=0,
    num_outputs=1,
    transitions=path((0, QUEUED), (1, RUNNING), (1, QUEUED), (2, RUNNING), (2, SUCCEEDED)),
    attempts=[
        attempt(1, AttemptOutcome.LOST, started=1),
        attempt(2, AttemptOutcome.SUCCEEDED, started=3),
    ],
    outputs=[output("results/job/2-token-2/0.png")],
)
CANCELED_EARLY = JobHistory(
    status=CANCELED,
    deadline_at=after(60),
    lost_leases=0,
    lost_alone=0,
    num_outputs=1,
    transitions=path((0, QUEUED), (0, CANCELED)),
    attempts=[],
    outputs=[],
)
SAMPLE = QueueSample("demo.interactive", announced=16, messages=16, slots=8)


#: Told of its start and its end, of the end twice in the same words.
TOLD = [
    Event("evt_1", EventType.STARTED, [b"started"]),
    Event("evt_2", EventType.SUCCEEDED, [b"succeeded", b"succeeded"]),
]


def judge(job: JobHistory) -> set[str]:
    history = History(frozenset({"job"}), {"job": job})
    return {violation.invariant for violation in check(history)}


@pytest.mark.parametrize("job", [GOOD, CANCELED_EARLY], ids=["succeeded", "canceled"])
def test_a_life_as_it_should_be_passes(job: JobHistory) -> None:
    assert judge(job) == set()


def test_i1_an_accepted_job_without_a_row() -> None:
    (violation,) = check(History(frozenset({"job", "gone"}), {"job": GOOD}))
    assert (violation.invariant, violation.subject) == ("I1", "gone")


@pytest.mark.parametrize(
    "change",
    [
        {"status": RUNNING, "transitions": path((0, QUEUED), (1, RUNNING))},
        {
            "transitions": [
                *GOOD.transitions,
                Transition(2, SUCCEEDED, FAILED, after(5)),
            ]
        },
        {"deadline_at": after(2)},
    ],
    ids=["no end", "two ends", "too late"],
)
def test_i2_one_end_in_time(change: dict[str, Any]) -> None:
    assert "I2" in judge(replace(GOOD, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"lost_leases": 0},
        {"lost_alone": 1},
        {
            "lost_leases": MAX_LOST_LEASES + 1,
            "attempts": [
                attempt(n, AttemptOutcome.LOST, started=n) for n in range(1, MAX_LOST_LEASES + 2)
            ],
        },
    ],
    ids=["loss not counted", "loss miscounted", "too many"],
)
def test_i3_attempts_are_counted_and_bounded(change: dict[str, Any]) -> None:
    assert "I3" in judge(replace(GOOD, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"transitions": path((0, QUEUED), (2, SUCCEEDED)), "attempts": GOOD.attempts[1:]},
        {"transitions": [*GOOD.transitions[:2], *GOOD.transitions[3:]]},
        {"transitions": GOOD.transitions[1:]},
        {"status": FAILED},
        {"transitions": path((0, QUEUED), (1, RUNNING), (1, QUEUED), (1, RUNNING), (1, SUCCEEDED))},
        {"attempts": GOOD.attempts[1:]},
        {"attempts": [GOOD.attempts[0], attempt(2, None, started=3)]},
        {"attempts": [attempt(1, AttemptOutcome.FAILED, started=1), GOOD.attempts[1]]},
    ],
    ids=[
        "illegal step",
        "missing step",
        "no birth",
        "row differs",
        "same attempt claimed twice",
        "claim without attempt",
        "attempt without end",
        "attempt with another end",
    ],
)
def test_i4_a_legal_path_with_one_claim_and_one_end_for_each_attempt(
    change: dict[str, Any],
) -> None:
    assert "I4" in judge(replace(GOOD, **change))


@pytest.mark.parametrize(
    "outputs",
    [
        [],
        [output("results/job/2-token-2/0.png", None)],
        [output("results/job/2-token-2/0.png", replace(FILE, sha256="cd"))],
        [output("results/job/2-token-2/0.png", replace(FILE, seed=8))],
        [output("results/job/1-token-1/0.png")],
    ],
    ids=["no output", "no object", "other bytes", "another job's", "another attempt's"],
)
def test_i5_outputs_are_in_the_store_and_the_winners(outputs: list[Output]) -> None:
    assert judge(replace(GOOD, outputs=outputs)) == {"I5"}


def test_i5_what_did_not_succeed_shows_nothing() -> None:
    assert judge(replace(CANCELED_EARLY, outputs=GOOD.outputs)) == {"I5"}


@pytest.mark.parametrize(
    "events",
    [
        [],
        TOLD[:1],
        [*TOLD, Event("evt_3", EventType.SUCCEEDED, [b"succeeded"])],
        [*TOLD, Event("evt_3", EventType.FAILED, [b"failed"])],
        [TOLD[0], replace(TOLD[1], bodies=[b"succeeded", b"again"])],
        [TOLD[0], replace(TOLD[1], bodies=[])],
    ],
    ids=["nothing", "no end", "two of the end", "two ends", "in other words", "never told"],
)
def test_i6_a_receiver_hears_of_one_end_in_the_same_words(events: list[Event]) -> None:
    assert judge(replace(GOOD, events=TOLD)) == set()
    assert judge(replace(GOOD, events=events)) == {"I6"}


def test_i7_nothing_runs_after_a_cancel() -> None:
    late = [attempt(1, AttemptOutcome.LOST, started=3)]
    assert "I7" in judge(replace(CANCELED_EARLY, attempts=late))


@pytest.mark.parametrize(
    ("sample", "is_caught"),
    [
        (SAMPLE, False),
        (replace(SAMPLE, messages=4 * WINDOW_PER_SLOT * SAMPLE.slots), True),
        (replace(SAMPLE, announced=WINDOW_PER_SLOT * SAMPLE.slots + 1), True),
        (replace(SAMPLE, slots=0, announced=MIN_WINDOW), False),
        (replace(SAMPLE, slots=0, announced=MIN_WINDOW + 1), True),
    ],
)
def test_i8_redis_holds_a_window(sample: QueueSample, is_caught: bool) -> None:
    found = check(History(frozenset(), {}, [sample]))
    assert [violation.invariant for violation in found] == ["I8"] * is_caught
