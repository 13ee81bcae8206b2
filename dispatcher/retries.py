"""When a delivery that failed is tried again."""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from shared.webhook import Outcome

_MINUTE, _HOUR = 60, 3600
#: Pause after the first try, the second, and so on, in seconds: 75 hours and 35 minutes in all.
PAUSES_S = (
    5, 5 * _MINUTE, 30 * _MINUTE, 2 * _HOUR, 5 * _HOUR,
    10 * _HOUR, 14 * _HOUR, 20 * _HOUR, 24 * _HOUR,
)  # fmt: skip
MAX_TRIES = len(PAUSES_S) + 1
#: Each pause grows by up to this share of it, so that what failed together is not retried together.
JITTER = 0.1
#: A receiver that asks for more time gets no more than this, in seconds.
MAX_RETRY_AFTER_S = 24 * _HOUR


def retry_in_s(
    outcome: Outcome, *, tries: int, retry_after_s: float | None, random: Callable[[], float]
) -> float | None:
    """Tell after how many seconds to try again; None if the delivery has come to its end.

    Args:
        outcome: How the last try ended.
        tries: How many there were, this one counted in.
        retry_after_s: What the receiver asked for.
        random: Draws from 0 to 1.
    """
    if outcome in (Outcome.ACCEPTED, Outcome.GONE) or tries >= MAX_TRIES:
        return None
    if outcome is Outcome.INTERRUPTED:
        return 0.0
    pause_s = PAUSES_S[tries - 1] * (1 + JITTER * random())
    return max(pause_s, min(retry_after_s or 0.0, MAX_RETRY_AFTER_S))


def read_retry_after(value: str | None, *, now: datetime) -> float | None:
    """Read a Retry-After header: seconds from now; None if it says nothing that can be read."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    # A date without a zone is meant in GMT.
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max((at - now).total_seconds(), 0.0)
