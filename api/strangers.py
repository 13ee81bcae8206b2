"""Clients that send keys which nobody has: after some of them they are asked to wait."""

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from api.rates import WINDOW_S
from shared.errors import QuotaExceeded

POLICY = "failed_authentications"
#: Wrong keys that one address may send in a minute, to each process.
MAX_FAILURES = 100


class Strangers:
    """Count failures by the address of the client, in this process."""

    def __init__(self) -> None:
        self._limit = RateLimitItemPerMinute(MAX_FAILURES)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def check(self, address: str) -> None:
        """Refuse an address before its key is looked up.

        Raises:
            QuotaExceeded: It has sent too many keys that are not valid.
        """
        if not self._limiter.test(self._limit, address):
            raise QuotaExceeded(
                "too many keys that are not valid came from this address",
                policies=[POLICY],
                retry_after_s=WINDOW_S,
            )

    def note_failure(self, address: str) -> None:
        """Count a key that is not valid."""
        self._limiter.hit(self._limit, address)
