"""`latentq`: one program for the service and its clients."""

import sys
from collections.abc import Callable

import typer

from cli.commands import (
    alive,
    backup,
    catalog,
    doctor,
    jobs,
    keys,
    presets,
    processes,
    read_only,
    submit,
    sweep,
    top,
    up,
    webhooks,
)
from latentq_client import JobFailed, ServiceRefused, ServiceUnreachable
from shared.errors import ConfigurationError, NotFound

app = typer.Typer(
    name="latentq",
    help="Run latent-diffusion jobs on a queue.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_PANELS: dict[str, list[Callable[..., None]]] = {
    "Service": [
        up.up,
        processes.api,
        processes.worker,
        processes.dispatcher,
        processes.migrate,
        doctor.doctor,
        alive.alive,
        top.top,
        backup.backup,
        backup.restore,
    ],
    "Jobs": [
        submit.submit,
        submit.estimate,
        sweep.sweep,
        sweep.batch,
        jobs.get,
        jobs.ls,
        jobs.cancel,
        jobs.retry,
        jobs.rm,
    ],
    "Catalog": [catalog.models, catalog.samplers],
}
for panel, commands in _PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.command("watch", rich_help_panel="Jobs")(jobs.watch_jobs)
app.add_typer(presets.app, name="presets", rich_help_panel="Catalog")
app.add_typer(webhooks.app, name="webhooks", rich_help_panel="Jobs")
app.add_typer(keys.app, name="keys", rich_help_panel="Service")
app.add_typer(read_only.app, name="read-only", rich_help_panel="Service")


def run() -> None:
    """Run the program; an error that its user can mend is told in a line, not as a traceback."""
    try:
        app()
    except JobFailed as error:
        _leave(1, str(error))
    except ConfigurationError as error:
        _leave(2, error.detail)
    except NotFound as error:
        _leave(4, error.detail)
    except ServiceUnreachable as error:
        _leave(3, str(error))
    except ServiceRefused as error:
        fields = [f"  {problem.pointer}: {problem.detail}" for problem in error.errors]
        _leave(4, "\n".join([f"refused ({error.code})", *fields] if fields else [str(error)]))


def _leave(exit_code: int, message: str) -> None:
    typer.echo(f"latentq: {message}", err=True)
    sys.exit(exit_code)


if __name__ == "__main__":
    run()
