import threading
from collections.abc import Iterable
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ServiceUnavailable
from shared.job import Lease
from worker.activity import Activity, Backlog
from worker.watchdog import ExitReason, Limits, Vitals, Watchdog, find_reason

LIMITS = Limits(grace_s=8, stall_s=30, starved_s=60)
NOW = 1000.0


@pytest.mark.parametrize(
    ("vitals", "reason"),
    [
        (Vitals(NOW), None),
        (Vitals(NOW, num_requests=1, stopping_for_s=8), None),
        (Vitals(NOW, num_requests=1, stopping_for_s=8.1), ExitReason.GRACE_OVER),
        (Vitals(NOW, num_requests=2, stopping_for_s=0.1), ExitReason.TOLD_AGAIN),
        (Vitals(NOW, step_s=30), None),
        (Vitals(NOW, step_s=30.1), ExitReason.STALLED),
        # A model may be loaded before a prompt is encoded, and decoding may take long.
        (Vitals(NOW, slow_stage_s=300), None),
        (Vitals(NOW, slow_stage_s=301), ExitReason.STALLED),
        # A worker that leaves has its grace, whatever stands still.
        (Vitals(NOW, num_requests=1, stopping_for_s=1, step_s=99), None),
        (Vitals(NOW, idle_since=NOW - 61, backlog_since=NOW - 61), ExitReason.STARVED),
        (Vitals(NOW, idle_since=NOW - 900, backlog_since=NOW - 59), None),
        (Vitals(NOW, idle_since=NOW - 59, backlog_since=NOW - 900), None),
        (Vitals(NOW, idle_since=None, backlog_since=NOW - 900), None),
        (Vitals(NOW, idle_since=NOW - 900, backlog_since=None), None),
    ],
)
def test_a_worker_ends_for_a_reason_and_not_before(
    vitals: Vitals, reason: ExitReason | None
) -> None:
    assert find_reason(vitals, LIMITS) is reason


times = st.floats(0, 10_000)


@given(step_s=times, slow_stage_s=times, idle_s=times, backlog_s=times)
def test_a_worker_within_all_limits_is_left_alone(
    step_s: float, slow_stage_s: float, idle_s: float, backlog_s: float
) -> None:
    vitals = Vitals(
        NOW,
        step_s=step_s,
        slow_stage_s=slow_stage_s,
        idle_since=NOW - idle_s,
        backlog_since=NOW - backlog_s,
    )
    reason = find_reason(vitals, LIMITS)
    is_stalled = step_s > 30 or slow_stage_s > 300
    is_starved = NOW - max(NOW - idle_s, NOW - backlog_s) > 60
    assert (reason is not None) == (is_stalled or is_starved)


@pytest.mark.parametrize("is_silent", [False, True], ids=["answers", "silent"])
def test_leases_are_settled_before_the_end_which_comes_in_any_case(
    monkeypatch: pytest.MonkeyPatch, is_silent: bool
) -> None:
    monkeypatch.setattr("worker.watchdog.SETTLE_S", 0.01 if is_silent else 10)
    lease = Lease("job_1", attempt=1, token=uuid4())
    told: list[object] = []
    release = threading.Event()

    def settle(leases: Iterable[Lease], reason: ExitReason) -> None:
        if is_silent:
            release.wait()
        told.append((list(leases), reason))

    watchdog = Watchdog(
        lambda: Vitals(NOW, step_s=31), LIMITS, held=lambda: [lease], settle=settle, end=told.append
    )
    watchdog.look()
    release.set()
    settled = ([lease], ExitReason.STALLED)
    assert told[0] == (1 if is_silent else settled)
    assert told.count(1) == 1


def test_who_has_a_message_in_hand_is_not_idle() -> None:
    now = [5.0]
    activity = Activity(lambda: now[0])
    assert activity.idle_since == 5.0
    with activity.busy(), activity.busy():
        assert activity.idle_since is None
    now[0] = 9.0
    with activity.busy():
        pass
    assert activity.idle_since == 9.0


def test_a_backlog_counts_from_when_it_was_first_seen_until_it_was_gone() -> None:
    now = [0.0]
    announced: dict[str, int] = {}
    away: list[Exception] = []

    def ping() -> None:
        if away:
            raise away[0]

    backlog = Backlog(lambda: announced, ping, queues=["a", "b"], clock=lambda: now[0])

    def look(at: float) -> float | None:
        now[0] = at
        backlog.look()
        return backlog.since

    announced |= {"other": 3}
    assert look(1) is None
    announced |= {"b": 1}
    assert (look(2), look(3)) == (2, 2)
    # A new process would reach Redis no better.
    away.append(ServiceUnavailable("away"))
    assert look(4) is None
    away.clear()
    assert look(5) == 5
    del announced["b"]
    assert look(6) is None
