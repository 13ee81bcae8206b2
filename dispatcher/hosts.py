"""How many deliveries each host gets at a time, so that none of them holds the others up."""

from collections.abc import Callable
from dataclasses import dataclass

from shared.webhook import Outcome

PER_HOST = 4
#: So many failures in a row to connect or to get an answer open a host's breaker,
MAX_FAILURES = 5
#: for so long, in seconds. Then one delivery at a time finds out.
OPEN_S = 60.0
#: How long a host that failed is remembered, in seconds.
MEMORY_S = 600.0
#: Answers of a host that has too much to do.
_OVERLOADED = frozenset({429, 502, 504})
_SILENT = frozenset({Outcome.TIMED_OUT, Outcome.UNREACHABLE})


@dataclass(slots=True)
class _Host:
    in_flight: int = 0
    failures: int = 0
    failed_at: float = 0.0
    is_overloaded: bool = False


class Hosts:
    """What is under way to each host, and what came of the last deliveries to it.

    Owned by one thread. `clock` tells seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._hosts: dict[str, _Host] = {}

    def begin(self, name: str) -> None:
        """Note that a delivery is under way."""
        self._hosts.setdefault(name, _Host()).in_flight += 1

    def end(self, name: str, outcome: Outcome, status_code: int | None) -> None:
        """Note how it ended. Any answer at all closes the breaker."""
        host = self._hosts[name]
        host.in_flight -= 1
        if outcome in _SILENT:
            host.failures += 1
            host.failed_at = self._clock()
        elif status_code is not None:
            host.failures = 0
            host.is_overloaded = status_code in _OVERLOADED
            host.failed_at = self._clock()

    def rooms(self) -> dict[str, int]:
        """Tell how many more deliveries each host may get; any other host may get PER_HOST."""
        now = self._clock()
        self._hosts = {
            name: host
            for name, host in self._hosts.items()
            if host.in_flight
            or ((host.failures or host.is_overloaded) and now - host.failed_at < MEMORY_S)
        }
        return {
            name: max(_limit(host, now) - host.in_flight, 0) for name, host in self._hosts.items()
        }


def _limit(host: _Host, now: float) -> int:
    if host.failures >= MAX_FAILURES:
        return 0 if now - host.failed_at < OPEN_S else 1
    return 1 if host.is_overloaded else PER_HOST
