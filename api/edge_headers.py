"""Headers of every answer: what browsers may do with it, and how much its caller may still ask."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.rates import Rate

SECURITY = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_RATE = "latentq.rate"


class EdgeHeaders:
    """Middleware that adds them, to refusals and failures too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Routers hand copies of the scope on; this is the same in all of them.
        rates: list[Rate] = []
        scope[_RATE] = rates

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY)
                for rate in rates:
                    headers.update(rate.headers)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def tell_rate(scope: Scope, rate: Rate) -> None:
    """Have the answer of a request say how its key stands."""
    scope[_RATE].append(rate)
