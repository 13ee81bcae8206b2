"""Watch every request: how long it took, what it was answered, and what it was refused for."""

import time
from http import HTTPMethod
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import NO_ROUTE
from shared.tracing import span

if TYPE_CHECKING:
    from api.services import Services

_CODES = "latentq.codes"
_METHODS = frozenset(HTTPMethod)


class Observation:
    """Middleware outside of all others; it sees what they answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Routers hand copies of the scope on; this is the same in all of them.
        codes: list[str] = []
        scope[_CODES] = codes
        services: Services = scope["app"].state.services
        method = scope["method"] if scope["method"] in _METHODS else "other"
        parent = Headers(scope=scope).get("traceparent")
        began_at = time.perf_counter()
        with span(services.tracer, method, parent=parent, kind=SpanKind.SERVER) as current:

            async def watch(message: Message) -> None:
                if message["type"] == "http.response.start":
                    seconds = time.perf_counter() - began_at
                    route, status = _route_of(scope), message["status"]
                    services.metrics.note_answer(method, route, status, seconds)
                    for code in codes:
                        services.metrics.note_refusal(code)
                    # Never the path or the query: they hold ids, and what callers search for.
                    current.update_name(f"{method} {route}")
                    current.set_attributes(
                        {
                            "http.request.method": method,
                            "http.route": route,
                            "http.response.status_code": status,
                        }
                    )
                await send(message)

            await self._app(scope, receive, watch)


def tell_problem(scope: Scope, code: str) -> None:
    """Have a problem counted that a request is answered by."""
    scope.get(_CODES, []).append(code)


def _route_of(scope: Scope) -> str:
    """Name a request by its route: a path would hold ids, and be a name of its own each time."""
    route: Any = scope.get("route")
    path: str | None = getattr(route, "path_format", None)
    return NO_ROUTE if path is None else path
