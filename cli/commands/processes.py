"""The processes of LatentQ, one command each; `latentq up` starts the same ones."""

from typing import Annotated

import typer

from cli.database import open_database


def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8000,
) -> None:
    """Run the HTTP API."""
    from api.main import main

    main(host=host, port=port)


def worker(
    name: Annotated[str, typer.Option(help="Name that this worker's jobs will show.")] = "worker",
) -> None:
    """Run a worker: as many as there are devices, on any host."""
    from worker.main import main

    main(name=name)


def dispatcher() -> None:
    """Run the dispatcher: moves waiting jobs to the workers and takes lost ones back."""
    from dispatcher.main import main

    main()


def migrate() -> None:
    """Bring the database to the version of this code."""
    from shared.db.migrate import upgrade
    from shared.settings import DatabaseSettings

    with open_database(DatabaseSettings.read().database_url.get_secret_value()) as database:
        upgrade(database)
