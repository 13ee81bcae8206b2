"""An id for every request, on its answer and on every log line it causes."""

import re
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-Id"
#: What a proxy in front may have chosen; anything else is replaced.
_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestIds:
    """Middleware that names each request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _WELL_FORMED.fullmatch(given) else f"req_{uuid.uuid4().hex}"
        scope["latentq.request_id"] = request_id

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, receive, send_named)


def request_id_of(scope: Scope) -> str:
    """Return the id that the middleware gave to a request."""
    request_id: str = scope["latentq.request_id"]
    return request_id
