"""Send a request until it is answered, within reason."""

import random
import time
from collections.abc import Callable
from typing import Any

import httpx

from latentq_client.errors import ServiceRefused, ServiceUnreachable

#: Answers that say "later": all of them come before anything has been done.
RETRIED_STATUSES = frozenset({429, 502, 503, 504})
MAX_TRIES = 5
FIRST_PAUSE_S = 0.25
#: A service that wants to be left alone for longer is not asked again, in seconds.
LONGEST_PAUSE_S = 30.0


class Transport:
    """Requests with retries; every request it is given may be sent twice without harm."""

    def __init__(
        self,
        http: httpx.Client,
        *,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._http = http
        self._sleep = sleep
        self._jitter = jitter

    def send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send a request and return its successful answer.

        Raises:
            ServiceUnreachable: Nobody answered, however often it was tried.
            ServiceRefused: The service said no.
        """
        for attempt in range(1, MAX_TRIES + 1):
            pause_s = FIRST_PAUSE_S * 2 ** (attempt - 1) * (1 + self._jitter())
            try:
                answer = self._http.request(method, path, **arguments)
            except httpx.TransportError as error:
                if attempt == MAX_TRIES:
                    raise ServiceUnreachable(f"{self._http.base_url} does not answer") from error
            else:
                if answer.is_success:
                    return answer
                pause_s = max(pause_s, _retry_after_s(answer))
                is_final = attempt == MAX_TRIES or pause_s > LONGEST_PAUSE_S
                if answer.status_code not in RETRIED_STATUSES or is_final:
                    raise ServiceRefused.read(answer)
            self._sleep(pause_s)
        raise AssertionError("the last try either returns or raises")


def _retry_after_s(answer: httpx.Response) -> float:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0
