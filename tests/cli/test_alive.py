import os
import socket
from datetime import timedelta

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from cli.main import app
from latentq_client import ServiceUnreachable
from shared.db.presence import HEALTHY_SILENCE_S, DispatcherRepository, WorkerRepository
from tests.fixtures.stack import free_port

HOST = socket.gethostname()


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    monkeypatch.setenv("LATENTQ_DATABASE_URL", database_url)


def exit_code(*arguments: str) -> int:
    ended = CliRunner().invoke(app, ["alive", *arguments])
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return ended.exit_code


def beat(database: sa.Engine, process: str, host: str) -> None:
    if process == "worker":
        worker_id = f"any@name@{host}:{os.getpid()}"
        WorkerRepository(database).beat(worker_id, device="cpu", queues=[], slots=1)
    else:
        DispatcherRepository(database).beat(f"{host}:{os.getpid()}")


@pytest.mark.parametrize("process", ["dispatcher", "worker"])
def test_a_process_is_alive_while_it_is_heard_of(database: sa.Engine, process: str) -> None:
    assert exit_code(process) == 1
    beat(database, process, HOST)
    assert exit_code(process) == 0
    older = timedelta(seconds=HEALTHY_SILENCE_S + 1)
    with database.begin() as connection:
        table = sa.table(f"{process}s", sa.column("heartbeat_at"))
        connection.execute(table.update().values(heartbeat_at=sa.func.now() - older))
    assert exit_code(process) == 1


@pytest.mark.parametrize("process", ["dispatcher", "worker"])
def test_processes_of_other_hosts_and_kinds_say_nothing_of_this_one(
    database: sa.Engine, process: str
) -> None:
    other = {"dispatcher": "worker", "worker": "dispatcher"}[process]
    beat(database, other, HOST)
    for host in (f"{HOST}2", f"x{HOST}", "_" * len(HOST), "%"):
        beat(database, process, host)
    assert exit_code(process) == 1


def test_an_api_that_nobody_serves_is_not_alive() -> None:
    assert exit_code("api", "--port", str(free_port())) == 1


def test_without_postgresql_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTQ_DATABASE_URL", f"postgresql://x:x@127.0.0.1:{free_port()}/x")
    with pytest.raises(ServiceUnreachable):
        exit_code("worker")
