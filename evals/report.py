"""Tables of figures, on the console and as a page of the documentation that says where they hold.

A figure without its machine, versions and commit cannot be compared with anything.
"""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table as RichTable

ROOT = Path(__file__).parents[1]
#: The options that every command which measures takes.
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures here.")]
PageFile = Annotated[
    Path | None, typer.Option("--page", help="Write the tables here, as markdown.")
]
#: Distributions whose versions decide what is measured.
MEASURED_WITH = ("torch", "diffusers")


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text, ready to be shown; one row has as many as there are columns."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    #: Leading columns that name what the row is about; the others are figures.
    num_names: int = 1

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.title!r}: a row has another number of cells")


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, under the question that it answers."""

    title: str
    question: str
    tables: Sequence[Table]
    #: Everything behind the tables, ready to be written as JSON.
    figures: Mapping[str, Any] = field(default_factory=dict)

    def publish(
        self, command: str, *, json_file: Path | None, page_file: Path | None, quick: bool
    ) -> None:
        """Show the tables, and write what was asked for; `command` measured it."""
        print_tables(self.tables)
        if json_file is not None:
            figures = {"machine": dict(describe_machine()), **self.figures}
            json_file.write_text(json.dumps(figures, indent=2) + "\n")
        if page_file is not None:
            typed = f"{command} {'--quick ' if quick else ''}--page {page_file}"
            write_page(page_file, self.title, self.question, self.tables, typed)


def print_tables(tables: Sequence[Table]) -> None:
    """Show tables on the console."""
    for table in tables:
        shown = RichTable(title=table.title, box=None, header_style="bold")
        for number, name in enumerate(table.columns):
            is_name = number < table.num_names
            shown.add_column(name, justify="left" if is_name else "right", no_wrap=is_name)
        for row in table.rows:
            shown.add_row(*row)
        Console().print(shown)


def write_page(
    path: Path, title: str, question: str, tables: Sequence[Table], command: str
) -> None:
    """Write tables as a markdown page, under the question that they answer.

    `command` is what makes the page again, as somebody types it in the root of the repository.
    """
    machine = "\n".join(f"- {name}: {value}" for name, value in describe_machine().items())
    page = render_page(title, question, tables, command)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{page}\n## Where it was measured\n\n{machine}\n")


def render_page(title: str, question: str, tables: Sequence[Table], command: str) -> str:
    """Write tables that no machine changes as markdown; see `write_page`."""
    parts = [
        f"# {title}",
        question,
        f"Made by `{command}`; do not edit it by hand.",
        render_tables(tables),
    ]
    return "\n\n".join(parts)


def render_tables(tables: Sequence[Table]) -> str:
    """Write tables as markdown, each under its title."""
    return "\n\n".join(_markdown_of(table) for table in tables) + "\n"


def describe_machine() -> Mapping[str, str]:
    """Say on what machine, with which versions, at which commit and on which day this runs."""
    return {
        "CPU": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": platform.system(),
        "Python": platform.python_version(),
        **{name: version(name) for name in MEASURED_WITH},
        "commit": _commit(),
        "day": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def _markdown_of(table: Table) -> str:
    aligns = [":--" if n < table.num_names else "--:" for n in range(len(table.columns))]
    lines = [table.columns, aligns, *table.rows]
    return f"## {table.title}\n\n" + "\n".join(_line(cells) for cells in lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    """Name the commit of this checkout, and say so if what is measured differs from it."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        # The pages themselves are written one after the other and measure nothing.
        changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    except (OSError, subprocess.CalledProcessError):
        return "unknown: not a checkout"
    return f"{commit}, with changes" if changes else commit


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return ended.stdout.strip()
