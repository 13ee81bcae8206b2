"""`python -m evals.settings_page`: write the page of all variables, from the settings."""

import math
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic import ByteSize, SecretStr
from pydantic.fields import FieldInfo

from evals.report import Table, render_page
from shared.environment import PREFIX, Settings
from shared.settings import (
    ApiSettings,
    BackupSettings,
    CatalogSettings,
    ClientSettings,
    CrashSettings,
    DatabaseSettings,
    DispatcherSettings,
    DoctorSettings,
    MetricsSettings,
    RedisSettings,
    StorageSettings,
    TracingSettings,
    WebhookSettings,
    WorkerSettings,
)

PAGE = Path("docs/reference/configuration.md")
TITLE = "Configuration"
QUESTION = f"""\
Which variables are there? A process reads them once, when it starts; one that is missing or wrong
ends it with exit code 2 and its name, never its value. Options of a command win over variables.

Instead of any variable that begins with `{PREFIX}` its name with `_FILE` behind it may be set to
the path of a file that holds the value: for what is a *secret*, that is the way. If both are set,
the variable itself counts. `latentq up` sets the variables of the stores for the processes that it
starts, and hands all others on. What only `docker-compose.yml` reads stands on
[its page](../operations/deploy-with-compose.md#settings), TLS, several servers and AWS on that of
[the network](../operations/network.md)."""
COLUMNS = ("variable", "what it says", "values", "if it is left out", "read by")
#: Who reads variables, and which.
READERS: dict[str, type[Settings]] = {
    "api": ApiSettings,
    "worker": WorkerSettings,
    "dispatcher": DispatcherSettings,
    "migrate": DatabaseSettings,
    "doctor": DoctorSettings,
    "backup": BackupSettings,
    "callers": ClientSettings,
}
#: Where each variable stands on the page.
GROUPS: dict[str, type[Settings]] = {
    "PostgreSQL": DatabaseSettings,
    "Redis": RedisSettings,
    "Object store": StorageSettings,
    "Models": CatalogSettings,
    "API": ApiSettings,
    "Worker": WorkerSettings,
    "Dispatcher": DispatcherSettings,
    "Webhooks": WebhookSettings,
    "Metrics": MetricsSettings,
    "Traces": TracingSettings,
    "Callers": ClientSettings,
    "Tests of this project": CrashSettings,
}
FOOTNOTE = """
`migrate` stands for `latentq migrate`, `keys`, `top`, `read-only` and `alive`, which ask PostgreSQL alone,
`doctor` for `latentq doctor`, `backup` for `latentq backup` and `restore`, and `callers` for the commands
that talk to the API.

## Of the libraries

These are read by what LatentQ is made of, in every process that uses it.

| variable | what it says |
| :-- | :-- |
| `FORWARDED_ALLOW_IPS` | uvicorn: proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` the API believes; by default those on 127.0.0.1 |
| `OTEL_...` | OpenTelemetry's SDK: sampler, headers, resource, certificates of the collector |
| `SSL_CERT_FILE` | the authorities that Redis, the hub, PostgreSQL with `sslrootcert=system`, the Python client and the commands for callers trust |
| `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY` | the store and the hub are asked through a proxy; receivers of webhooks never are |
"""  # noqa: E501 - rows of a table


def main(output: Annotated[Path, typer.Option(help="Where to write it.")] = PAGE) -> None:
    """Write the page."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render())
    print(f"wrote {output}")  # noqa: T201


def render() -> str:
    """Write the whole page as markdown."""
    tables = [
        Table(title, COLUMNS, [*_rows_of(group)], num_names=len(COLUMNS))
        for title, group in GROUPS.items()
    ]
    return render_page(TITLE, QUESTION, tables, "python -m evals.settings_page") + FOOTNOTE


def variable_of(name: str, field: FieldInfo) -> str:
    """Name the variable that a field is read from."""
    alias = field.validation_alias
    return alias if isinstance(alias, str) else f"{PREFIX}{name.upper()}"


def _rows_of(group: type[Settings]) -> Iterator[tuple[str, ...]]:
    # Of a process, what no group has.
    for name in group.__annotations__:
        field = group.model_fields[name]
        readers = [reader for reader, settings in READERS.items() if name in settings.model_fields]
        yield (
            f"`{variable_of(name, field)}`",
            field.description or "",
            _values_of(field),
            _default_of(field),
            ", ".join(readers),
        )


def _values_of(field: FieldInfo) -> str:
    kinds = [kind for kind in get_args(field.annotation) if kind is not type(None)]
    kind = kinds[0] if kinds else field.annotation
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return ", ".join(f"`{value}`" for value in kind)
    words: dict[Any, str] = {
        SecretStr: "text, *secret*",
        bool: "`true`, `false`",
        int: "whole number",
        float: "number",
        Path: "path",
        ByteSize: "bytes, or as `12GiB`",
    }
    limits = [
        f"{word} {_plain(getattr(limit, side))}"
        for limit in field.metadata
        for side, word in (("ge", "at least"), ("le", "at most"))
        if hasattr(limit, side)
    ]
    return ", ".join([words.get(kind, "text"), *limits])


def _default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    match field.default:
        case None:
            return ""
        case bool():
            return f"`{str(field.default).lower()}`"
        case int() | float():
            return f"`{_plain(field.default)}`"
    return f"`{field.default}`"


def _plain(number: float) -> str:
    return str(int(number)) if math.isclose(number, int(number)) else str(number)


if __name__ == "__main__":
    typer.run(main)
