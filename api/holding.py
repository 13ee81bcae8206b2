"""Requests that are held until a job has news, and streams of events that they answer with."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.auth import Caller
from api.hub import Watch
from api.services import Services, ServicesOf
from api.waiting import watching
from shared.db.keys import Principal

#: How often a stream without news says that it goes on, in seconds.
PING_S = 15.0


@dataclass(frozen=True, slots=True)
class Held:
    """A request that waits for a job."""

    services: Services
    caller: Principal
    request: Request
    watch: Watch


async def hold(request: Request, caller: Caller, services: ServicesOf) -> AsyncIterator[Held]:
    """Let a request wait until it is answered; refused, if at all, before there is a job.

    Raises:
        RequestRefused: Too many requests of the key wait.
        ServiceUnavailable: Too many requests wait in this process.
    """
    async with watching(services, caller, request) as watch:
        yield Held(services, caller, request, watch)


HeldRequest = Annotated[Held, Depends(hold)]


class EventStream(StreamingResponse):
    """Server-sent events that go on until they end by themselves.

    The framework's stream is broken off when its client goes away, and could then do nothing more.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], status_code: int = 200) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(events, status_code, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send all events."""
        await self.stream_response(send)
