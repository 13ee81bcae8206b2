"""Read a JSON body: bounded, UTF-8, each name once.

Python's parser is more lenient than RFC 8259: it guesses the encoding and keeps the last of two
equal names, so that a caller's other value would be dropped without a word.
"""

import json
from collections.abc import Callable, Coroutine
from email.message import Message
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope

from api.problems import RequestRefused

MAX_BODY_BYTES = 256 * 1024


class JsonRequest(Request):
    """A request whose body is read strictly."""

    def __init__(self, scope: Scope, receive: Receive, *, max_bytes: int) -> None:
        super().__init__(scope, receive)
        self._max_bytes = max_bytes

    async def body(self) -> bytes:
        """Read the body.

        Raises:
            RequestRefused: It is larger than the limit.
        """
        if not hasattr(self, "_body"):
            read = bytearray()
            async for chunk in self.stream():
                read += chunk
                if len(read) > self._max_bytes:
                    raise RequestRefused(
                        f"a body may have {self._max_bytes:,} bytes", code="body_too_large"
                    )
            self._body = bytes(read)
        return self._body

    async def json(self) -> Any:
        """Parse the body.

        Raises:
            RequestRefused: It is not JSON, or does not say that it is.
        """
        if not hasattr(self, "_json"):
            if not _is_json(self.headers.get("content-type", "")):
                raise RequestRefused(
                    "send the body as Content-Type: application/json", code="unsupported_media_type"
                )
            self._json = _parse(await self.body())
        return self._json


class JsonRoute(APIRoute):
    """A route that has read its body before anything else looks at it."""

    max_body_bytes = MAX_BODY_BYTES

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the framework's handler, which would turn a refusal of the body into its own."""
        handle = super().get_route_handler()

        async def read_and_handle(request: Request) -> Response:
            strict = JsonRequest(request.scope, request.receive, max_bytes=self.max_body_bytes)
            if self.body_field is not None:
                await strict.json()
            return await handle(strict)

        return read_and_handle


def _is_json(content_type: str) -> bool:
    message = Message()
    message["content-type"] = content_type
    kind = message.get_content_type()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_make_object)
    except UnicodeDecodeError as error:
        raise _malformed("the body is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise _malformed(
            f"the body is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from error
    except RecursionError as error:
        raise _malformed("the body is nested too deeply") from error
    except ValueError as error:
        raise _malformed("the body has a number of too many digits") from error


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _malformed("the body has a name twice in one object")
    return made


def _malformed(detail: str) -> RequestRefused:
    return RequestRefused(detail, code="malformed_body")
