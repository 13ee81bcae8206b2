"""`latentq sweep`, `batch`: many jobs at once."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar

import typer
from rich.console import Console

from cli.commands.submit import KeyOption, Prompt
from cli.connection import ApiKeyOption, JsonOption, UrlOption, connect
from cli.contact_sheet import PAGE, cells_of, write_contact_sheet
from cli.job_fields import OPTIONS, name_subject, send_pictures, with_fields
from cli.preview import PreviewStyle
from cli.printing import (
    describe_subject,
    fail_unless_succeeded,
    print_jobs,
    print_json,
    tell_saved,
)
from cli.watching import watch_until_end
from shared.errors import ConfigurationError

#: Fields of a job that a sweep takes lists of.
SWEPT = ("preset", "sampler", "schedule", "steps", "guidance", "seed")
ValueT = TypeVar("ValueT")


@with_fields([name for name in OPTIONS if name not in SWEPT])
def sweep(  # noqa: PLR0913 - one option for each list
    prompt: Prompt = None,
    *,
    presets: Annotated[str | None, typer.Option(help="NAME,NAME,...")] = None,
    samplers: Annotated[str | None, typer.Option(help="euler,heun,...")] = None,
    schedules: Annotated[str | None, typer.Option(help="native,karras,...")] = None,
    steps: Annotated[str | None, typer.Option(help="10,25,...")] = None,
    guidance: Annotated[str | None, typer.Option(help="2,7.5,...")] = None,
    seeds: Annotated[
        str | None, typer.Option(help="7,8,...; one is chosen for all if left out.")
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave out what cannot work.")
    ] = False,
    fields: dict[str, Any],
    idempotency_key: KeyOption = None,
    output: Annotated[
        Path | None,
        typer.Option(help=f"Folder for the outputs and their contact sheet, {PAGE}; waits."),
    ] = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a job in all combinations of some values, and lay the pictures out on a page."""
    swept = name_subject(prompt, fields)
    values: dict[str, Any] = {
        "presets": _split("--presets", presets, str),
        "samplers": _split("--samplers", samplers, str),
        "schedules": _split("--schedules", schedules, str),
        "steps": _split("--steps", steps, int),
        "guidance": _split("--guidance", guidance, float),
        "seeds": _split("--seeds", seeds, int),
    }
    given = {name: listed for name, listed in values.items() if listed is not None}
    with connect(url, api_key) as client:
        made = client.submit_sweep(
            send_pictures(client, swept),  # type: ignore[arg-type]
            skip_invalid=skip_invalid,
            idempotency_key=idempotency_key,
            **given,
        )
        handles = [point.job for point in made.points]
        saved: list[Sequence[Path]] = []
        if output is not None:
            watch_until_end(client, handles, preview=PreviewStyle.OFF, quiet=as_json)
            saved = [handle.save(output) for handle in handles]
            page = write_contact_sheet(
                cells_of(made, saved), describe_subject(handles[0].data.request)
            )
            output.mkdir(parents=True, exist_ok=True)
            (output / PAGE).write_text(page, encoding="utf-8")
    if as_json:
        print_json(
            {
                "batch": made.id,
                "data": [
                    {**point.job.data.raw, "coordinates": point.coordinates}
                    for point in made.points
                ],
                "skipped": [
                    {"coordinates": one.coordinates, "errors": [e.detail for e in one.errors]}
                    for one in made.skipped
                ],
            }
        )
    else:
        print_jobs([handle.data for handle in handles])
        for one in made.skipped:
            named = ", ".join(f"{name} {value}" for name, value in one.coordinates.items())
            reasons = "; ".join(error.detail for error in one.errors)
            Console(stderr=True).print(f"left out {named}: {reasons}", highlight=False)
    if output is not None:
        tell_saved([output / PAGE])
    fail_unless_succeeded([handle.data for handle in handles])


def batch(  # noqa: PLR0913 - one option for each thing to say
    file: Annotated[
        typer.FileText, typer.Argument(help="A job's body in JSON on each line; - reads them here.")
    ],
    *,
    idempotency_key: KeyOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end, with live bars.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Folder to save the outputs to; waits for the end.")
    ] = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit many jobs together: all are accepted, or none."""
    bodies = _read_lines(file)
    with connect(url, api_key) as client:
        handles = list(client.submit_batch(bodies, idempotency_key=idempotency_key).jobs)
        if wait or output is not None:
            watch_until_end(client, handles, preview=PreviewStyle.OFF, quiet=as_json)
        if output is not None:
            tell_saved([path for handle in handles for path in handle.save(output)])
    jobs = [handle.data for handle in handles]
    if as_json:
        print_json([job.raw for job in jobs])
    else:
        print_jobs(jobs)
    fail_unless_succeeded(jobs)


def _split(option: str, text: str | None, read: Callable[[str], ValueT]) -> list[ValueT] | None:
    if text is None:
        return None
    try:
        return [read(part.strip()) for part in text.split(",")]
    except ValueError as error:
        raise ConfigurationError(f"{option} takes numbers with commas between them") from error


def _read_lines(file: TextIO) -> list[Any]:
    bodies = []
    # Not by what else ends lines for Python: JSON may hold it.
    for number, line in enumerate(file.read().split("\n"), start=1):
        if line.strip():
            try:
                bodies.append(json.loads(line))
            except ValueError as error:
                raise ConfigurationError(f"{file.name}, line {number}: {error}") from error
    return bodies
