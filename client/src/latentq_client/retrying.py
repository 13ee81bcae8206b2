"""Send a request until it is answered, within reason."""

import random
from collections.abc import Mapping
from typing import Any

import httpx

from latentq_client.effects import Pause, Send, Steps
from latentq_client.errors import ServiceRefused, ServiceUnreachable

#: Answers that say "later": all of them come before anything has been done.
RETRIED_STATUSES = frozenset({429, 502, 503, 504})
MAX_TRIES = 5
FIRST_PAUSE_S = 0.25
#: A service that wants to be left alone for longer is not asked again, in seconds.
LONGEST_PAUSE_S = 30.0


def send(
    method: str, url: str, *, is_link: bool = False, hold_s: float = 0, **options: Any
) -> Steps[httpx.Response]:
    """Send a request, which may be sent twice without harm, and return an answer that is no error.

    Raises:
        ServiceUnreachable: Nobody answered, however often it was tried.
        ServiceRefused: The service said no.
    """
    request = Send(method, url, options, is_link, hold_s)
    for tries in range(1, MAX_TRIES + 1):
        pause_s = pause_after(tries)
        try:
            answer: httpx.Response = yield request
        except httpx.TransportError as error:
            if tries == MAX_TRIES:
                raise ServiceUnreachable(f"{name_of(error)} does not answer") from error
        else:
            if not answer.is_error:
                return answer
            pause_s = max(pause_s, _retry_after_s(answer))
            is_final = tries == MAX_TRIES or pause_s > LONGEST_PAUSE_S
            if answer.status_code not in RETRIED_STATUSES or is_final:
                raise ServiceRefused.read(answer)
        yield Pause(pause_s)
    raise AssertionError("the last try either returns or raises")


def read(url: str, **parameters: str) -> Steps[Mapping[str, Any]]:
    """Read a JSON document.

    Raises:
        ServiceUnreachable: Nobody answered.
        ServiceRefused: The service said no.
    """
    answer = yield from send("GET", url, params=parameters)
    document: Mapping[str, Any] = answer.json()
    return document


def pause_after(tries: int) -> float:
    """Return how long to pause after so many tries, in seconds: longer and longer, and uneven."""
    return float(FIRST_PAUSE_S * 2 ** (tries - 1) * (1 + random.random()))  # noqa: S311


def name_of(error: httpx.TransportError) -> str:
    """Name the host of a request that came to nothing."""
    url = error.request.url
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _retry_after_s(answer: httpx.Response) -> float:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else 0.0
