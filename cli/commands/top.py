"""`latentq top`: how jobs, models and workers stand, now and from now on. It asks PostgreSQL."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from cli.connection import JsonOption
from cli.database import find_database, open_database
from cli.keyboard import reading_keys
from cli.printing import print_json

if TYPE_CHECKING:
    import sqlalchemy as sa

QUIT = "q"
HINT = f"every {{:g}} s; {QUIT} quits; rows, it/s and forward are of a worker's last 10 s"


def top(
    once: Annotated[bool, typer.Option("--once", help="Look once, and do not stay.")] = False,
    interval: Annotated[
        float, typer.Option(help="Pause between two looks, in seconds.", min=0.2, max=3600)
    ] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Watch jobs, models and workers live; q quits.

    The database is that of LATENTQ_DATABASE_URL, else of the `latentq up` next to us. Without a
    terminal, and with --json, it looks once.
    """
    # Not at the top: client commands start without it.
    from cli.fleet import draw_fleet, look_at_fleet

    console = Console()
    with open_database(find_database()) as database:
        if as_json:
            print_json(look_at_fleet(database))
        elif once or not console.is_terminal:
            console.print(draw_fleet(look_at_fleet(database)))
        else:
            _stay(database, console, interval)


def _stay(database: "sa.Engine", console: Console, interval_s: float) -> None:
    """Look again and again, until the user has seen enough."""
    hint = Text(HINT.format(interval_s), style="dim")
    with (
        reading_keys() as read_key,
        Live(_draw(database, hint), console=console, screen=True, auto_refresh=False) as live,
    ):
        while read_key(interval_s) != QUIT:
            live.update(_draw(database, hint), refresh=True)


def _draw(database: "sa.Engine", hint: Text) -> RenderableType:
    from cli.fleet import draw_fleet, look_at_fleet
    from shared.db.session import DATABASE_AWAY

    try:
        return Group(draw_fleet(look_at_fleet(database)), Text(), hint)
    except DATABASE_AWAY:
        return Group(Text("PostgreSQL does not answer", style="red"), Text(), hint)
