"""`latentq doctor`: what is wrong, and what to do about it. It asks the stores themselves."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.connection import JsonOption
from cli.database import read_settings
from shared.settings import DoctorSettings

if TYPE_CHECKING:
    from dispatcher.checks import Check, Verdict
    from dispatcher.situation import Situation

    Finding = tuple[Check, Verdict | None]

#: What `latentq up` tells of its stores.
_NEARBY = (
    "database_url", "redis_url",
    "s3_endpoint", "s3_region", "s3_bucket", "s3_access_key", "s3_secret_key",
)  # fmt: skip
WRONG, UNREACHABLE = 1, 3


def doctor(as_json: JsonOption = False) -> None:
    """Check the stores, the processes and the jobs, and say what to do.

    The stores are those of the LATENTQ_... variables, else of the `latentq up` next to us. Exits
    with 0 if all is well, 1 if something is wrong, 3 if PostgreSQL does not answer.
    """
    settings = read_settings(DoctorSettings, _NEARBY)
    situation = _look(settings)
    findings = list(_judge(situation))
    if as_json:
        typer.echo(json.dumps(_describe(findings), indent=2))
    else:
        _print(findings)
    if situation.database is None:
        raise typer.Exit(UNREACHABLE)
    if any(verdict is None or verdict.is_bad for _, verdict in findings):
        raise typer.Exit(WRONG)


def _look(settings: DoctorSettings) -> "Situation":
    # Not at the top: client commands start without them.
    from dispatcher.situation import Observer
    from models import CATALOG
    from shared.catalog import Catalog
    from shared.db.session import make_engine
    from shared.queue import JobQueue
    from shared.storage import ObjectStore

    catalog = Catalog.load(settings.catalog or CATALOG, hub=settings.hub)
    database = make_engine(settings.database_url.get_secret_value())
    queue = JobQueue(settings.redis_url.get_secret_value())
    store = ObjectStore(settings.store)
    try:
        return Observer(database, queue, store, catalog).look()
    finally:
        database.dispose()


def _judge(situation: "Situation") -> Iterator["Finding"]:
    from dispatcher.checks import CHECKS

    for check in CHECKS:
        yield check, check.judge(situation)


def _describe(findings: list["Finding"]) -> dict[str, object]:
    is_healthy = all(verdict is not None and not verdict.is_bad for _, verdict in findings)
    return {
        "healthy": is_healthy,
        "checks": [
            {
                "name": check.name,
                "status": _status_of(verdict),
                "amount": None if verdict is None else verdict.amount,
                "detail": None if verdict is None else verdict.detail,
                "remedy": check.remedy if verdict is not None and verdict.is_bad else None,
            }
            for check, verdict in findings
        ],
    }


def _print(findings: list["Finding"]) -> None:
    styles = {"ok": "green", "wrong": "red", "unknown": "yellow"}
    table = Table(box=None, show_header=False)
    for check, verdict in findings:
        status = _status_of(verdict)
        detail = "cannot be known now" if verdict is None else verdict.detail
        if verdict is not None and verdict.is_bad:
            detail = f"{detail}\n{check.remedy}"
        table.add_row(Text(status, style=styles[status]), Text(check.name), Text(detail))
    Console().print(table)


def _status_of(verdict: "Verdict | None") -> str:
    if verdict is None:
        return "unknown"
    return "wrong" if verdict.is_bad else "ok"
