"""Who a request comes from: `Authorization: Bearer KEY`."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.services import ServicesOf
from shared.access import Scope
from shared.db.keys import Principal
from shared.errors import Forbidden, Unauthorized

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
