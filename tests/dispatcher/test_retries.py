from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.retries import (
    JITTER,
    MAX_RETRY_AFTER_S,
    MAX_TRIES,
    PAUSES_S,
    read_retry_after,
    retry_in_s,
)
from shared.webhook import Outcome

NOW = datetime(2026, 11, 24, 7, 0, 0, tzinfo=UTC)
FAILURES = st.sampled_from(
    [
        Outcome.REFUSED, Outcome.REDIRECTED, Outcome.TIMED_OUT, Outcome.UNREACHABLE,
        Outcome.UNTRUSTED, Outcome.FORBIDDEN, Outcome.INTERNAL,
    ]
)  # fmt: skip
DRAWS = st.floats(0, 1, exclude_max=True)


def test_the_schedule_is_the_documented_one() -> None:
    assert MAX_TRIES == 10
    assert sum(PAUSES_S) == (75 * 60 + 35) * 60 + 5


@given(outcomes=st.lists(FAILURES, min_size=MAX_TRIES, max_size=MAX_TRIES), draw=DRAWS)
def test_a_receiver_that_never_takes_it_is_tried_on_schedule_and_then_given_up(
    outcomes: list[Outcome], draw: float
) -> None:
    now_s, pauses = 0.0, []
    for tries, outcome in enumerate(outcomes, start=1):
        pause_s = retry_in_s(outcome, tries=tries, retry_after_s=None, random=lambda: draw)
        if pause_s is None:
            break
        now_s += pause_s
        pauses.append(pause_s)
    assert len(pauses) == MAX_TRIES - 1
    for pause_s, documented_s in zip(pauses, PAUSES_S, strict=True):
        assert documented_s <= pause_s <= documented_s * (1 + JITTER)
    assert sum(PAUSES_S) <= now_s <= sum(PAUSES_S) * (1 + JITTER)


@given(
    tries=st.integers(1, MAX_TRIES - 1), draw=DRAWS, asked_for=st.floats(0, 1e9, allow_nan=False)
)
def test_a_receiver_gets_the_time_it_asks_for_within_bounds_and_never_less_than_the_schedule(
    tries: int, draw: float, asked_for: float
) -> None:
    plain, asked = (
        retry_in_s(Outcome.REFUSED, tries=tries, retry_after_s=after, random=lambda: draw)
        for after in (None, asked_for)
    )
    assert plain is not None
    assert asked == max(plain, min(asked_for, MAX_RETRY_AFTER_S))


@pytest.mark.parametrize("outcome", [Outcome.ACCEPTED, Outcome.GONE])
def test_some_ends_are_final(outcome: Outcome) -> None:
    assert retry_in_s(outcome, tries=1, retry_after_s=60, random=lambda: 0) is None


def test_what_this_side_broke_off_is_due_again_at_once() -> None:
    assert retry_in_s(Outcome.INTERRUPTED, tries=3, retry_after_s=None, random=lambda: 0.5) == 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("120", 120),
        ("-1", None),
        ("soon", None),
        ("", None),
        (format_datetime(NOW + timedelta(minutes=2), usegmt=True), 120),
        (format_datetime(NOW - timedelta(minutes=2), usegmt=True), 0),
        ("Tue, 24 Nov 2026 07:02:00", 120),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert read_retry_after(value, now=NOW) == seconds


@given(value=st.text(max_size=40))
def test_any_retry_after_is_read_or_left(value: str) -> None:
    seconds = read_retry_after(value, now=NOW)
    assert seconds is None or seconds >= 0
