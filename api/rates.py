"""Requests per minute of keys that have such a limit: counted in Redis, which nobody waits for."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass
from typing import Any

import structlog
from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from shared.db.keys import Principal
from shared.errors import QuotaExceeded

log = structlog.get_logger(__name__)

POLICY = "requests_per_minute"
WINDOW_S = 60
#: How long a request may wait for Redis, all in all, in seconds.
PATIENCE_S = 0.05
#: How long nobody asks Redis after it did not answer, in seconds.
BREAK_S = 5.0
#: Requests that may ask at once.
MAX_ASKING = 4


@dataclass(frozen=True, slots=True)
class Rate:
    """How a key stands, counted with the request that asks."""

    is_over: bool
    limit: int
    remaining: int
    #: When a request more may be let in, in seconds.
    refill_s: int

    @property
    def headers(self) -> dict[str, str]:
        """Return the fields of draft-ietf-httpapi-ratelimit-headers-11."""
        return {
            "RateLimit-Policy": f'"{POLICY}";q={self.limit};w={WINDOW_S}',
            "RateLimit": f'"{POLICY}";r={self.remaining};t={self.refill_s}',
        }


class Rates:
    """Count requests by key in a sliding window of a minute.

    Redis counts for all processes together. While it does not answer, each process counts for
    itself, from nothing.
    """

    def __init__(self, redis_url: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        options: dict[str, Any] = {
            "socket_timeout": PATIENCE_S,
            "socket_connect_timeout": PATIENCE_S,
            "retry": None,
        }
        self._shared = SlidingWindowCounterRateLimiter(
            RedisStorage(redis_url, key_prefix="latentq.rate", wrap_exceptions=True, **options)
        )
        self._own = SlidingWindowCounterRateLimiter(MemoryStorage())
        # Time-outs of sockets are for one read each; only another thread can be left in time.
        self._asking = ThreadPoolExecutor(MAX_ASKING, thread_name_prefix="rates")
        self._monotonic = monotonic
        self._lock = threading.Lock()
        # Until when nobody asks Redis; None while it answers.
        self._broken_until: float | None = None

    def take(self, caller: Principal) -> Rate | None:
        """Count a request; None for a key without such a limit, for which nobody is asked."""
        limit = caller.limits.requests_per_minute
        if limit is None:
            return None
        item = RateLimitItemPerMinute(limit)
        if self._may_ask():
            asked: Future[Rate] = self._asking.submit(_hit, self._shared, item, caller.key_id)
            try:
                rate = asked.result(PATIENCE_S)
            except (Late, StorageError) as error:
                asked.cancel()
                self._note_broken(error)
            else:
                self._note_answer()
                return rate
        return _hit(self._own, item, caller.key_id)

    def close(self) -> None:
        """Let go of the threads."""
        self._asking.shutdown(wait=False, cancel_futures=True)

    def _may_ask(self) -> bool:
        with self._lock:
            if self._broken_until is None:
                return True
            now = self._monotonic()
            if now < self._broken_until:
                return False
            # This one tries; the others go on without until it knows.
            self._broken_until = now + BREAK_S
            return True

    def _note_broken(self, error: Exception) -> None:
        with self._lock:
            is_news, self._broken_until = (
                self._broken_until is None,
                self._monotonic() + BREAK_S,
            )
        if is_news:
            log.warning("rates_counted_by_process", error=type(error).__name__)

    def _note_answer(self) -> None:
        with self._lock:
            is_news, self._broken_until = self._broken_until is not None, None
        if is_news:
            log.info("rates_counted_in_redis")


def refuse_over(rate: Rate) -> None:
    """Refuse a request that is one too many.

    Raises:
        QuotaExceeded: It is.
    """
    if rate.is_over:
        raise QuotaExceeded(
            f"this key may send {rate.limit:,} requests a minute",
            policies=[POLICY],
            retry_after_s=rate.refill_s,
        )


def _hit(
    limiter: SlidingWindowCounterRateLimiter, item: RateLimitItemPerMinute, key_id: str
) -> Rate:
    is_within = limiter.hit(item, key_id)
    stats = limiter.get_window_stats(item, key_id)
    refill_s = min(max(math.ceil(stats.reset_time - time.time()), 1), WINDOW_S)
    return Rate(not is_within, item.amount, max(0, stats.remaining), refill_s)
