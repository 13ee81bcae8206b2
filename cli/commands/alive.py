"""`latentq alive`: whether a process of this host does its work, for what watches containers."""

import socket
from enum import StrEnum
from typing import Annotated

import typer

from cli.database import open_database

PATIENCE_S = 4.0
NOT_ALIVE = 1


class Process(StrEnum):
    """What can be asked for."""

    API = "api"
    DISPATCHER = "dispatcher"
    WORKER = "worker"


def alive(
    process: Annotated[Process, typer.Argument(help="Which process.")],
    port: Annotated[int, typer.Option(help="Where the API listens.", min=1, max=65535)] = 8000,
) -> None:
    """Tell whether a process of this host does its work.

    The API must accept jobs. A dispatcher or a worker, which listens nowhere, must have told
    PostgreSQL lately that it is there; a worker does that as soon as its models are warm.

    Exits with 0 if it does, 1 if not, 3 if PostgreSQL does not answer.
    """
    is_alive = _accepts_jobs(port) if process is Process.API else _is_heard_of(process)
    if not is_alive:
        typer.echo(f"no {process} of {socket.gethostname()} does its work", err=True)
        raise typer.Exit(NOT_ALIVE)


def _accepts_jobs(port: int) -> bool:
    import httpx

    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE_S)
    except httpx.TransportError:
        return False
    return answer.status_code == httpx.codes.OK


def _is_heard_of(process: Process) -> bool:
    from shared.db.presence import DispatcherRepository, WorkerRepository
    from shared.settings import DatabaseSettings

    host = socket.gethostname()
    with open_database(DatabaseSettings.read().database_url.get_secret_value()) as database:
        if process is Process.WORKER:
            return WorkerRepository(database).is_heard_of(host)
        return DispatcherRepository(database).is_heard_of(host)
