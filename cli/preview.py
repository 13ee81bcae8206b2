"""Pictures in terminals, by the protocol that each has for them."""

import importlib.util
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.text import Text

from cli.graphics import ROWS, in_blocks, in_iterm2, in_kitty, in_sixels
from cli.progress import BAR_WIDTH, status_text
from latentq_client import Job, Progress
from shared.errors import ConfigurationError


class PreviewStyle(StrEnum):
    """How pictures are shown."""

    AUTO = "auto"
    KITTY = "kitty"
    ITERM2 = "iterm2"
    SIXEL = "sixel"
    BLOCKS = "blocks"
    OFF = "off"


#: Ways in which files go to the terminal as they are.
_WITHOUT_PILLOW = {PreviewStyle.OFF, PreviewStyle.ITERM2}

PreviewOption = Annotated[
    PreviewStyle,
    typer.Option(
        help="How to show a single job's picture while it is drawn: auto does so in terminals known"
        " to show pictures, blocks of characters go anywhere."
    ),
]


def detect(environment: Mapping[str, str]) -> PreviewStyle:
    """Tell by its variables what a terminal can show; none is asked, as it may not answer."""
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if environment.get("TMUX") or term.startswith(("screen", "tmux")):
        return PreviewStyle.OFF  # it would have to pass pictures on
    if "KITTY_WINDOW_ID" in environment or "kitty" in term or program == "ghostty":
        return PreviewStyle.KITTY
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return PreviewStyle.ITERM2
    if term.startswith(("foot", "mlterm", "contour")):
        return PreviewStyle.SIXEL
    return PreviewStyle.OFF


def choose_style(wanted: PreviewStyle, console: Console) -> PreviewStyle:
    """Settle how pictures are shown; `auto` shows none where that is not known to work.

    Raises:
        ConfigurationError: The way that was asked for needs what is not there.
    """
    if wanted is PreviewStyle.OFF or console.quiet or not console.is_terminal:
        return PreviewStyle.OFF
    environment = os.environ  # noqa: TID251 - the clients' process entry
    style = detect(environment) if wanted is PreviewStyle.AUTO else wanted
    if style not in _WITHOUT_PILLOW and importlib.util.find_spec("PIL") is None:
        if wanted is PreviewStyle.AUTO:
            return PreviewStyle.OFF
        raise ConfigurationError(f"--preview {wanted} needs Pillow: pip install pillow")
    return style


class Canvas(AbstractContextManager["Canvas"]):
    """A picture that is drawn over and over, and a line below it."""

    def __init__(self, console: Console, style: PreviewStyle) -> None:
        self._console = console
        self._style = style

    def __enter__(self) -> Self:
        self._console.show_cursor(False)
        # Scrolls where it has to, so that the place stays where it is from here on.
        self._console.file.write("\n" * (ROWS + 1))
        return self

    def __exit__(self, *_: object) -> None:
        self._console.show_cursor(True)

    def draw(self, data: bytes) -> None:
        """Show a picture, given as a file, in place of the one before."""
        self._up(ROWS + 1)
        match self._style:
            case PreviewStyle.BLOCKS:
                self._console.print(in_blocks(data))
                self._console.file.write("\n")
                return
            case PreviewStyle.KITTY:
                sequence = in_kitty(data)
            case PreviewStyle.SIXEL:
                sequence = in_sixels(data)
            case _:
                sequence = in_iterm2(data)
        # Terminals differ in where a picture leaves the cursor.
        self._console.file.write(f"\x1b7{sequence}\x1b8\x1b[{ROWS + 1}B")
        self._console.file.flush()

    def write(self, job: Job, progress: Progress | None = None) -> None:
        """Show how far the job has come, by news of its progress or as it stood."""
        progress = progress or job.progress
        filled = round(BAR_WIDTH * progress.iteration / max(progress.iterations, 1))
        self._up(1)
        self._console.file.write("\x1b[2K")
        line = Text.assemble(
            f"{job.id} ",
            ("━" * filled, "cyan"),
            ("━" * (BAR_WIDTH - filled), "dim"),
            f" {progress.iteration}/{progress.iterations} ",
            status_text(job.status),
        )
        self._console.print(line, no_wrap=True, overflow="crop")

    def _up(self, lines: int) -> None:
        self._console.file.write(f"\r\x1b[{lines}A")
