"""`latentq up`: the whole system on one machine."""

import os
import signal
from pathlib import Path
from typing import Annotated

import typer


def up(
    data_dir: Annotated[
        Path, typer.Option(help="Where everything is kept; made if it is missing.")
    ] = Path(".latentq"),
    host: Annotated[str, typer.Option(help="Address that the API listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the API.", min=1, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(help="Worker processes.", min=0, max=64)] = 1,
) -> None:
    """Run everything on this machine: PostgreSQL, Valkey, SeaweedFS, API, dispatcher, workers.

    Data survives a restart with the same directory. Ctrl-C stops everything.
    """
    from cli.standalone.state import DataDir
    from cli.standalone.system import Address, System

    with DataDir(data_dir) as directory:
        system = System(
            directory,
            Address(host, port),
            num_workers=workers,
            environment=os.environ,  # noqa: TID251 - handed on to the processes, not read
            say=lambda line: typer.echo(f"latentq: {line}", err=True),
        )
        if system.run() is signal.SIGINT:
            raise typer.Exit(130)
