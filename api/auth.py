"""Who a request comes from: `Authorization: Bearer KEY`."""

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.services import ServicesOf
from shared.db.keys import Principal
from shared.errors import Unauthorized

#: What a long answer takes for fresh, so that with its own pauses it ends within half a minute.
FRESH = timedelta(seconds=20)

_bearer = HTTPBearer(auto_error=False, description="An API key")


def authenticate(
    services: ServicesOf,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Principal:
    """Return the owner of the request's key.

    Raises:
        Unauthorized: There is no key, or it is not valid.
    """
    principal = services.keyring.find(credentials.credentials) if credentials else None
    if principal is None:
        raise Unauthorized("send a valid API key as Authorization: Bearer KEY")
    return principal


#: The caller of a route; the router asks for it too, so that no route can forget to.
Caller = Annotated[Principal, Depends(authenticate)]


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
