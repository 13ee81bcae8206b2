"""Who a request comes from: `Authorization: Bearer KEY`."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.edge_headers import tell_rate
from api.rates import refuse_over
from api.services import ServicesOf
from shared.access import Scope
from shared.db.keys import Principal
from shared.errors import Forbidden, Unauthorized

_HINT = "send a valid API key as Authorization: Bearer KEY"

_bearer = HTTPBearer(auto_error=False, description="An API key")


def authenticate(
    request: Request,
    services: ServicesOf,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Principal:
    """Return the owner of the request's key.

    Raises:
        Unauthorized: There is no key, or it is not valid.
        QuotaExceeded: The key has sent its requests of this minute, or the address many wrong keys.
    """
    if credentials is None:
        raise Unauthorized(_HINT)
    key, keyring = credentials.credentials, services.keyring
    address = request.client.host if request.client else ""
    if not keyring.knows(key):
        services.strangers.check(address)
    principal = keyring.find(key)
    if principal is None:
        services.strangers.note_failure(address)
        raise Unauthorized(_HINT)
    rate = services.rates.take(principal)
    if rate is not None:
        tell_rate(request.scope, rate)
        refuse_over(rate)
    return principal


#: The caller of a route; the router asks for it too, so that no route can forget to.
Caller = Annotated[Principal, Depends(authenticate)]


@dataclass(frozen=True, slots=True)
class Requires:
    """A dependency of a route, or of all routes of a router: the scope that its callers need."""

    scope: Scope

    def __call__(self, caller: Caller) -> None:
        """Let a caller pass.

        Raises:
            Forbidden: The key is not for this.
        """
        if not caller.may(self.scope):
            raise Forbidden(f"this needs a key with the scope {self.scope}")
