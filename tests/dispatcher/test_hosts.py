from dataclasses import dataclass

import pytest

from dispatcher.hosts import MAX_FAILURES, MEMORY_S, OPEN_S, PER_HOST, Hosts
from shared.webhook import Outcome


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hosts(clock: Clock) -> Hosts:
    return Hosts(clock)


def fail(hosts: Hosts, times: int, outcome: Outcome = Outcome.TIMED_OUT) -> None:
    for _ in range(times):
        hosts.begin("a")
        hosts.end("a", outcome, None)


def test_a_host_gets_so_many_at_a_time(hosts: Hosts) -> None:
    for left in reversed(range(PER_HOST)):
        hosts.begin("a")
        assert hosts.rooms() == {"a": left}
    hosts.end("a", Outcome.ACCEPTED, 204)
    assert hosts.rooms() == {"a": 1}


@pytest.mark.parametrize("outcome", [Outcome.TIMED_OUT, Outcome.UNREACHABLE])
def test_the_breaker_opens_then_lets_one_through(
    hosts: Hosts, clock: Clock, outcome: Outcome
) -> None:
    fail(hosts, MAX_FAILURES - 1, outcome)
    assert hosts.rooms() == {"a": PER_HOST}
    fail(hosts, 1, outcome)
    assert hosts.rooms() == {"a": 0}
    clock.now += OPEN_S
    assert hosts.rooms() == {"a": 1}
    fail(hosts, 1, outcome)
    assert hosts.rooms() == {"a": 0}
    clock.now += OPEN_S
    hosts.begin("a")
    assert hosts.rooms() == {"a": 0}
    hosts.end("a", Outcome.REFUSED, 500)
    assert hosts.rooms() == {}


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome.REFUSED, 500), (Outcome.REDIRECTED, 302), (Outcome.UNTRUSTED, None),
        (Outcome.FORBIDDEN, None), (Outcome.INTERNAL, None), (Outcome.INTERRUPTED, None),
    ],
)  # fmt: skip
def test_nothing_else_opens_it(hosts: Hosts, outcome: Outcome, code: int | None) -> None:
    for _ in range(3 * MAX_FAILURES):
        hosts.begin("a")
        hosts.end("a", outcome, code)
    assert hosts.rooms().get("a", PER_HOST) == PER_HOST


def test_any_answer_starts_the_count_anew(hosts: Hosts) -> None:
    fail(hosts, MAX_FAILURES - 1)
    hosts.begin("a")
    hosts.end("a", Outcome.REFUSED, 500)
    fail(hosts, MAX_FAILURES - 1)
    assert hosts.rooms() == {"a": PER_HOST}


def test_an_overloaded_host_gets_one_at_a_time_until_it_recovers(hosts: Hosts) -> None:
    hosts.begin("a")
    hosts.end("a", Outcome.REFUSED, 429)
    assert hosts.rooms() == {"a": 1}
    hosts.begin("a")
    assert hosts.rooms() == {"a": 0}
    hosts.end("a", Outcome.ACCEPTED, 200)
    assert hosts.rooms() == {}


def test_hosts_are_forgotten(hosts: Hosts, clock: Clock) -> None:
    fail(hosts, MAX_FAILURES)
    clock.now += MEMORY_S
    assert hosts.rooms() == {}
