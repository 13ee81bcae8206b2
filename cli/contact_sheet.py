"""A sweep on one page: its pictures in a grid, a browser and no server needed."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentq_client import JobHandle, Sweep, SweepPoint

PAGE = "index.html"
#: How files end that are played, not shown.
SOUNDS = frozenset({".wav", ".flac"})
Coordinates = dict[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands at one combination: pictures or sounds, or why there are none."""

    coordinates: Coordinates
    files: Sequence[Path]
    note: str


def write_contact_sheet(cells: Sequence[Cell], subject: str) -> str:
    """Write the page: the values of the last field that varies side by side, all else below."""
    across = _last_that_varies(cells)
    columns = list(dict.fromkeys(cell.coordinates.get(across, "") for cell in cells))
    rows: dict[tuple[tuple[str, str | int | float], ...], dict[str | int | float, Cell]] = {}
    for cell in cells:
        rest = tuple(item for item in cell.coordinates.items() if item[0] != across)
        rows.setdefault(rest, {})[cell.coordinates.get(across, "")] = cell
    head = "".join(f"<th>{html.escape(f'{across} {value}')}</th>" for value in columns)
    body = "\n".join(
        f"<tr><th>{html.escape(_describe(dict(rest)))}</th>"
        + "".join(f"<td>{_show(found.get(value))}</td>" for value in columns)
        + "</tr>"
        for rest, found in rows.items()
    )
    return _PAGE.format(subject=html.escape(subject), head=head, body=body)


def cells_of(sweep: Sweep[JobHandle], files: Sequence[Sequence[Path]]) -> list[Cell]:
    """Join what a sweep came to with where its files are, in the order of its points."""
    made = [
        Cell(dict(point.coordinates), paths, _note(point))
        for point, paths in zip(sweep.points, files, strict=True)
    ]
    left_out = [
        Cell(dict(one.coordinates), [], "; ".join(error.detail for error in one.errors))
        for one in sweep.skipped
    ]
    return [*made, *left_out]


def _note(point: SweepPoint[JobHandle]) -> str:
    job = point.job
    if job.error is not None:
        return f"{job.error.code}: {job.error.message}"
    return f"seed {job.request['seed']}" if job.artifacts else job.status


def _last_that_varies(cells: Sequence[Cell]) -> str:
    names = [name for cell in cells for name in cell.coordinates]
    varying = [
        name
        for name in dict.fromkeys(names)
        if len({cell.coordinates.get(name) for cell in cells}) > 1
    ]
    return (varying or names or [""])[-1]


def _describe(coordinates: Coordinates) -> str:
    return ", ".join(f"{name} {value}" for name, value in coordinates.items())


def _show(cell: Cell | None) -> str:
    if cell is None:
        return ""
    shown = "".join(_show_file(path, _describe(cell.coordinates)) for path in cell.files)
    return f"{shown}<small>{html.escape(cell.note)}</small>"


def _show_file(path: Path, what: str) -> str:
    name = html.escape(path.name)
    if path.suffix in SOUNDS:
        return f'<audio controls src="{name}" title="{html.escape(what)}"></audio>'
    return f'<a href="{name}"><img src="{name}" alt="{html.escape(what)}"></a>'


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>LatentQ sweep</title>
<style>
  body {{ margin: 3rem; background: #fafaf8; color: #1c1c1e;
         font: 15px/1.5 system-ui, sans-serif; }}
  h1 {{ font-size: 1.4rem; }}
  table {{ border-spacing: 1rem; margin: 0 -1rem; }}
  th {{ font-weight: 500; text-align: left; white-space: nowrap; }}
  td {{ vertical-align: top; max-width: 14rem; }}
  img {{ width: 12rem; border-radius: 6px; display: block; margin-bottom: .3rem; }}
  audio {{ width: 12rem; display: block; margin-bottom: .3rem; }}
  small {{ display: block; color: #6e6e73; }}
</style>
<h1>{subject}</h1>
<table>
<tr><th></th>{head}</tr>
{body}
</table>
</html>
"""
