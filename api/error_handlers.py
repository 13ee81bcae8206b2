"""Where exceptions become answers. Routes contain no `try`."""

import traceback
from http import HTTPMethod

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.events import StreamIsOver
from api.problems import render_problem
from api.read_only import RETRY_AFTER_S, ServiceReadOnly
from api.validation import explain
from shared.db.session import explain_away
from shared.errors import InvalidRequest, LatentqError, QuotaExceeded, StorageUnavailable

log = structlog.get_logger(__name__)

#: Codes of what the framework refuses by itself.
_CODES = {404: "not_found", 405: "method_not_allowed"}
_STORE_AWAY = "the object store does not answer"
_DATABASE_AWAY = "PostgreSQL does not answer"
_UNEXPECTED = "the log of the service tells more under this request's id"


def add_error_handlers(app: FastAPI) -> None:
    """Answer every expected exception as a problem."""
    app.exception_handler(LatentqError)(_answer_error)
    app.exception_handler(QuotaExceeded)(_answer_quota)
    app.exception_handler(ServiceReadOnly)(_answer_read_only)
    app.exception_handler(StorageUnavailable)(_answer_store_away)
    app.exception_handler(RequestValidationError)(_answer_invalid)
    app.exception_handler(HTTPException)(_answer_http)
    app.exception_handler(StreamIsOver)(_answer_nothing)
    for lost in (OperationalError, InterfaceError, PoolTimeout):
        app.exception_handler(lost)(_answer_database_away)


def name_problem(error: Exception) -> tuple[str, str]:
    """Return the code and the detail of what went wrong after an answer had begun."""
    match error:
        case StorageUnavailable():
            return "service_unavailable", _STORE_AWAY
        case LatentqError():
            return error.code, error.detail
        case OperationalError() | InterfaceError() | PoolTimeout():
            return "service_unavailable", _DATABASE_AWAY
        case _:
            log_unexpected(error)
            return "internal", _UNEXPECTED


def log_unexpected(error: Exception, **context: str) -> None:
    """Name an error and the lines it passed, not its message: that may quote a prompt."""
    log.error(
        "request_failed",
        error=type(error).__qualname__,
        where=traceback.format_tb(error.__traceback__),
        **context,
    )


class UnexpectedErrors:
    """Middleware that answers 500 for what nobody expected."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False

        async def watch(message: Message) -> None:
            nonlocal has_started
            has_started = has_started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception as error:
            log_unexpected(error, method=scope["method"])
            if has_started:
                raise ConnectionAbortedError from None  # too late for an answer: break it off
            answer = render_problem(Request(scope), "internal", _UNEXPECTED)
            await answer(scope, receive, send)


async def _answer_error(request: Request, error: LatentqError) -> Response:
    problems = error.problems if isinstance(error, InvalidRequest) else []
    return render_problem(request, error.code, error.detail, problems=problems)


async def _answer_quota(request: Request, error: QuotaExceeded) -> Response:
    return render_problem(
        request,
        error.code,
        error.detail,
        policies=error.policies,
        retry_after_s=error.retry_after_s,
    )


async def _answer_read_only(request: Request, error: ServiceReadOnly) -> Response:
    return render_problem(request, error.code, error.detail, retry_after_s=RETRY_AFTER_S)


async def _answer_invalid(request: Request, error: RequestValidationError) -> Response:
    return await _answer_error(request, explain(error.errors()))


async def _answer_http(request: Request, error: HTTPException) -> Response:
    code = _CODES.get(error.status_code, "bad_request")
    answer = render_problem(request, code, error.detail)
    answer.headers.update(error.headers or {})
    if error.status_code == 405:
        answer.headers["Allow"] = ", ".join(_methods_of(request))
    return answer


def _methods_of(request: Request) -> list[str]:
    """List what may be done at a path; the framework names the methods of one route of it."""
    scope = {"type": "http", "path": request.scope["path"], "root_path": ""}
    return [
        method
        for method in HTTPMethod
        if any(
            route.matches(scope | {"method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


async def _answer_nothing(_request: Request, _over: Exception) -> Response:
    return Response(status_code=204)


async def _answer_store_away(request: Request, error: StorageUnavailable) -> Response:
    log.warning("store_away", detail=error.detail)
    return render_problem(request, "service_unavailable", _STORE_AWAY)


async def _answer_database_away(request: Request, error: Exception) -> Response:
    log.warning("postgresql_away", error=type(error).__name__, detail=explain_away(error))
    return render_problem(request, "service_unavailable", _DATABASE_AWAY)
