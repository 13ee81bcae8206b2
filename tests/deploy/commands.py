"""What command lines and variables of containers mean to LatentQ."""

from collections.abc import Iterable, Sequence

import typer

from cli.main import app
from shared.environment import PREFIX, Settings
from shared.settings import ApiSettings, DatabaseSettings, DispatcherSettings, WorkerSettings

SETTINGS: dict[str, type[Settings]] = {
    "api": ApiSettings,
    "dispatcher": DispatcherSettings,
    "migrate": DatabaseSettings,
    "worker": WorkerSettings,
}


def parse(arguments: Sequence[str]) -> dict[str, object]:
    """Read the arguments of `latentq` as it does; fails as it does."""
    program = typer.main.get_command(app)
    with program.make_context("latentq", list(arguments), resilient_parsing=False) as context:
        name, command, rest = program.resolve_command(context, list(arguments))
        with command.make_context(name, rest, parent=context) as parsed:
            return dict(parsed.params)


def unknown_variables(process: str, variables: Iterable[str]) -> set[str]:
    """Name the LATENTQ_ variables that a process would ignore."""
    fields = SETTINGS[process].model_fields
    known = {f"{PREFIX}{name.upper()}{suffix}" for name in fields for suffix in ("", "_FILE")}
    return {name for name in variables if name.startswith(PREFIX)} - known


def missing_variables(process: str, variables: Iterable[str]) -> set[str]:
    """Name the settings without a default that a process is not given."""
    given = {name.removesuffix("_FILE") for name in variables}
    needed = {
        f"{PREFIX}{name.upper()}"
        for name, field in SETTINGS[process].model_fields.items()
        if field.is_required()
    }
    return needed - given
