"""A service that answers from a list, in front of either kind of client."""

from collections.abc import Callable
from typing import Any

import httpx

from latentq_client import AsyncClient, Client
from tests.fixtures.callers import AsyncCaller, Caller

JOB: dict[str, Any] = {
    "id": "job_1",
    "status": "queued",
    "request": {"output_format": "png"},
    "preset": {"name": "balanced", "version": 1},
    "progress": {"iteration": 0, "iterations": 4, "eta_s": None},
    "artifacts": [],
    "error": None,
    "execution": None,
    "created_at": "2026-01-01T00:00:00Z",
    "started_at": None,
    "finished_at": None,
    "of a later version": True,
}
Answer = httpx.Response | httpx.TransportError | Callable[[], httpx.Response]


class Service:
    """Answers requests from a list, the last one for ever, and remembers all; time is its own."""

    def __init__(self, kind: str, *answers: Answer) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.sleeps: list[float] = []
        self.now = 1000.0
        options = {
            "transport": httpx.MockTransport(self._answer),
            "clock": lambda: self.now,
        }
        url, key = "http://service.example.test", "lq_key"
        self.caller = (
            Caller(Client(url, key, sleep=self._sleep, **options))
            if kind == "blocking"
            else AsyncCaller(AsyncClient(url, key, sleep=self._sleep_async, **options))
        )

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call an operation and return what it comes to."""
        return self.caller.call(self.caller.client, name, *args, **kwargs)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, httpx.TransportError):
            raise answer
        if isinstance(answer, httpx.Response):
            return answer
        return answer()

    def _sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds

    async def _sleep_async(self, seconds: float) -> None:
        self._sleep(seconds)


def job(**changes: Any) -> httpx.Response:
    return httpx.Response(200, json=JOB | changes)


def problem(status: int, **headers: str) -> httpx.Response:
    body = {"code": "nope", "detail": "because", "errors": [{"pointer": "/a", "detail": "x"}]}
    return httpx.Response(status, json=body, headers=headers)


def lost() -> httpx.TransportError:
    return httpx.ConnectError("gone")
