"""Who a request comes from: `Authorization: Bearer KEY`."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

import structlog
from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.edge_headers import tell_rate
from api.rates import refuse_over
from api.services import ServicesOf
from shared.access import Scope
from shared.db.keys import Principal
from shared.errors import Forbidden, Unauthorized

_HINT = "send a valid API key as Authorization: Bearer KEY"

#: What a long answer takes for fresh, so that with its own pauses it ends within half a minute.
FRESH = timedelta(seconds=20)

#: What every log line of a request about a job says. Anything else in its path may be private.
_JOB_ID = re.compile(r"job_[0-9a-f]{32}")

_bearer = HTTPBearer(auto_error=False, description="An API key")


async def authenticate(
    request: Request,
    services: ServicesOf,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Find out whose key the request has, for all that ask for the `Caller` after it.

    Raises:
        Unauthorized: There is no key, or it is not valid.
        QuotaExceeded: The key has sent its requests of this minute, or the address many wrong keys.
    """
    if credentials is None:
        raise Unauthorized(_HINT)
    key, keyring = credentials.credentials, services.keyring
    # Hardly ever is there anything to wait for.
    principal = keyring.recall(key)
    if principal is None:
        address = request.client.host if request.client else ""
        services.strangers.check(address)
        principal = await run_in_threadpool(keyring.find, key)
        if principal is None:
            services.strangers.note_failure(address)
            raise Unauthorized(_HINT)
    if principal.limits.requests_per_minute is not None:
        rate = await run_in_threadpool(services.rates.take, principal)
        if rate is not None:
            tell_rate(request.scope, rate)
            refuse_over(rate)
    request.state.caller = principal
    job_id = request.path_params.get("job_id", "")
    if _JOB_ID.fullmatch(job_id):
        structlog.contextvars.bind_contextvars(job_id=job_id)


async def get_caller(request: Request) -> Principal:
    """Return the owner of the request's key; every router authenticates before anything else."""
    principal: Principal = request.state.caller
    return principal


#: The caller of a route. To depend on `authenticate` itself would be to solve all of it again.
Caller = Annotated[Principal, Depends(get_caller)]


@dataclass(frozen=True, slots=True)
class Requires:
    """A dependency of a route, or of all routes of a router: the scope that its callers need."""

    scope: Scope

    async def __call__(self, request: Request) -> None:
        """Let a caller pass.

        Raises:
            Forbidden: The key is not for this.
        """
        if not (await get_caller(request)).may(self.scope):
            raise Forbidden(f"this needs a key with the scope {self.scope}")


def make_recheck(
    services: ServicesOf,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Callable[[], bool]:
    """Make a function for long answers that tells whether the request's key is still valid."""

    def holds_key() -> bool:
        find = services.keyring.find
        return credentials is not None and find(credentials.credentials, max_age=FRESH) is not None

    return holds_key


HoldsKey = Annotated[Callable[[], bool], Depends(make_recheck)]
