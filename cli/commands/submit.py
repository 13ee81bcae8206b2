"""`latentq submit`, `estimate`: one job, made or only asked about."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from cli.connection import ApiKeyOption, JsonOption, UrlOption, connect
from cli.job_fields import OPTIONS, name_subject, send_pictures, with_fields
from cli.preview import PreviewOption, PreviewStyle
from cli.printing import (
    describe_request,
    fail_unless_succeeded,
    print_job,
    print_json,
    print_rows,
    tell_saved,
)
from cli.watching import watch_until_end
from latentq_client import Estimate

Prompt = Annotated[
    str | None,
    typer.Argument(
        help="What the picture or the sound shall be of; models with labels take --class-label."
    ),
]
KeyOption = Annotated[str | None, typer.Option(help="The same key again is the same job.")]


@with_fields(list(OPTIONS))
def submit(  # noqa: PLR0913 - one option for each thing to say
    prompt: Prompt = None,
    *,
    fields: dict[str, Any],
    idempotency_key: KeyOption = None,
    wait: Annotated[
        bool, typer.Option("--wait", "--watch", help="Wait for the end, with a live bar.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="Folder to save the outputs to; waits for the end.")
    ] = None,
    preview: PreviewOption = PreviewStyle.AUTO,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a job."""
    named = name_subject(prompt, fields)
    with connect(url, api_key) as client:
        body = send_pictures(client, named)
        handle = client.submit(idempotency_key=idempotency_key, **body)
        job = handle.data
        if wait or output is not None:
            (job,) = watch_until_end(client, [handle], preview=preview, quiet=as_json)
        saved = handle.save(output) if output is not None else []
    print_job(job, as_json=as_json)
    tell_saved(saved)
    fail_unless_succeeded([job])


@with_fields(list(OPTIONS))
def estimate(
    prompt: Prompt = None,
    *,
    fields: dict[str, Any],
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask what a job would cost and when its turn would come, without making it."""
    named = name_subject(prompt, fields)
    with connect(url, api_key) as client:
        found = client.estimate(**send_pictures(client, named))
    if as_json:
        print_json(found.raw)
    else:
        print_rows(_describe(found))


def _describe(found: Estimate) -> dict[str, Text]:
    rows = {
        "request": describe_request(found.request, found.preset),
        "cost": Text(
            f"{found.megapixel_iterations:g} megapixel-iterations, {found.iterations} iterations"
        ),
        "run": Text(_seconds(found.predicted_s)),
    }
    if found.unschedulable is not None:
        rows["wait"] = Text(found.unschedulable)
    else:
        ahead = "" if found.position is None else f", {found.position} ahead"
        rows["wait"] = Text(
            f"{_seconds(found.eta_s)} ({_seconds(found.eta_low_s)} to "
            f"{_seconds(found.eta_high_s)}){ahead}"
        )
    return rows


def _seconds(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2g} s"
