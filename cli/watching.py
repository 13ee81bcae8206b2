"""Watch jobs until they end: bars for many, a picture for a single one where there is room."""

from collections.abc import Sequence

import typer
from rich.console import Console

from cli.preview import Canvas, PreviewStyle, choose_style
from cli.progress import watch
from latentq_client import Client, Job, JobHandle


def watch_until_end(
    client: Client, handles: Sequence[JobHandle], *, preview: PreviewStyle, quiet: bool
) -> list[Job]:
    """Show jobs until all have ended, and return them in order.

    Raises:
        Exit: The user does not want to wait any longer; the jobs go on.
        ConfigurationError: Previews cannot be shown in the way that was asked for.
    """
    console = Console(stderr=True, quiet=quiet)
    style = choose_style(preview, console)
    try:
        if len(handles) == 1 and style is not PreviewStyle.OFF:
            return [_watch_picture(client, handles[0], Canvas(console, style))]
        return watch(client, handles, console=console)
    except KeyboardInterrupt:
        ids = " ".join(handle.id for handle in handles)
        typer.echo(f"the service goes on; look again with: latentq watch {ids}", err=True)
        raise typer.Exit(130) from None


def _watch_picture(client: Client, handle: JobHandle, canvas: Canvas) -> Job:
    job = handle.data
    with canvas:
        for event in handle.events(previews=True):
            job = event.job or job
            if event.preview is not None and event.preview.output_index == 0:
                canvas.draw(event.preview.data)
            if event.progress is not None or event.job is not None:
                canvas.write(job, event.progress)
        job = handle.refresh().data
        if job.artifacts:
            made = job.artifacts[0]
            canvas.draw(client.download(made, thumbnail=made.is_sound))
        canvas.write(job)
    return job
