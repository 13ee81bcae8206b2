"""`/livez` and `/readyz`, open to whoever watches the process."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from api.openapi import refusals
from api.services import ServicesOf
from shared.errors import ServiceUnavailable

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process runs."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Jobs are accepted; `degraded` if a store is away that they need later."""

    status: Literal["ready", "degraded"]
    #: `ok`, or what is wrong.
    checks: dict[str, str]
    #: Whether this process refuses changes, as its operator wants it.
    read_only: bool


@router.get("/livez")
async def check_alive() -> Alive:
    """Tell that the process runs."""
    return Alive()


@router.get("/readyz", responses=refusals(503))
def check_ready(services: ServicesOf) -> Readiness:
    """Tell whether jobs are accepted."""
    report = services.health.check()
    if report.database is not None:
        raise ServiceUnavailable(report.database)
    checks = {"postgresql": None, **report.others}
    return Readiness(
        status="degraded" if any(checks.values()) else "ready",
        checks={name: trouble or "ok" for name, trouble in checks.items()},
        read_only=services.read_only.is_on,
    )
