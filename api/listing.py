"""Lists a page at a time: filters of jobs, and cursors that clients need not understand."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Protocol, TypeVar
from urllib.parse import urlencode

from fastapi import Query, Request, Response
from pydantic import AwareDatetime, BeforeValidator, TypeAdapter

from api.caching import forbid_caching
from api.problems import RequestRefused
from api.schemas import Text, refuse_other_times
from shared.db.cursor import Cursor
from shared.db.jobs import JobFilters
from shared.errors import FieldProblem, InvalidRequest
from shared.job import JobStatus

_METADATA = "metadata."
_PLAIN = {
    "limit", "cursor", "status", "model", "preset", "batch", "created_after", "created_before",
}  # fmt: skip
_Time = Annotated[AwareDatetime | None, BeforeValidator(refuse_other_times)]
_CURSOR = TypeAdapter(tuple[AwareDatetime, Text])


def read_filters(  # noqa: PLR0913 - one for each parameter of a query
    request: Request,
    *,
    status: JobStatus | None = None,
    model: Text | None = None,
    preset: Text | None = None,
    batch: Text | None = None,
    created_after: _Time = None,
    created_before: _Time = None,
) -> JobFilters:
    """Read which jobs are wanted; `metadata.KEY=VALUE` may stand any number of times.

    Raises:
        InvalidRequest: A parameter is unknown, stands twice, or cannot be looked for.
    """
    given = request.query_params.multi_items()
    metadata = {
        name.removeprefix(_METADATA): value for name, value in given if name.startswith(_METADATA)
    }
    names = [name for name, _ in given]
    if len(set(names)) != len(names):
        raise _refused("a parameter may stand once")
    if any(name not in _PLAIN and not name.startswith(_METADATA) for name in names):
        raise _refused(f"unknown parameter; known: {', '.join(sorted(_PLAIN))}, metadata.KEY")
    if any("\0" in text for item in metadata.items() for text in item):
        raise _refused("no job has a NUL character in its metadata")
    return JobFilters(
        status=status,
        model=model,
        preset=preset,
        batch=batch,
        created_after=created_after,
        created_before=created_before,
        metadata=metadata,
    )


@dataclass(frozen=True, slots=True)
class Place:
    """Which page of the list is wanted: up to `limit` jobs behind a place, or from the newest."""

    after: Cursor | None
    limit: int

    @property
    def num_read(self) -> int:
        """How many items to read: one more than asked for tells whether there is a next page."""
        return self.limit + 1


class Listed(Protocol):
    """What a list can hold."""

    @property
    def id(self) -> str:
        """Tells it from others of the same moment."""

    @property
    def created_at(self) -> datetime:
        """Gives it its place."""


ListedT = TypeVar("ListedT", bound=Listed)


def read_place(cursor: str | None = None, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> Place:
    """Read which page is wanted.

    Raises:
        RequestRefused: No page ended with this cursor.
    """
    return Place(None if cursor is None else _read_cursor(cursor), limit)


def _read_cursor(cursor: str) -> Cursor:
    try:
        created_at, job_id = _CURSOR.validate_json(base64.urlsafe_b64decode(cursor))
    except ValueError as error:
        raise RequestRefused(
            "use next_cursor of the page before, or none", code="invalid_cursor"
        ) from error
    return Cursor(created_at, job_id)


def cut_page(
    found: Sequence[ListedT], place: Place, request: Request, response: Response
) -> tuple[Sequence[ListedT], str | None]:
    """Cut what was read to the page that was asked for; returns it and the next one's cursor.

    The answer's headers link to the next page, if there is one (RFC 8288), and forbid caching.
    """
    forbid_caching(response)
    page = found[: place.limit]
    if len(found) <= place.limit:
        return page, None
    cursor = _write_cursor(page[-1])
    kept = [item for item in request.query_params.multi_items() if item[0] != "cursor"]
    query = urlencode([*kept, ("cursor", cursor)])
    response.headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'
    return page, cursor


def _write_cursor(last: Listed) -> str:
    place = json.dumps([last.created_at.isoformat(), last.id], separators=(",", ":"))
    return base64.urlsafe_b64encode(place.encode()).decode()


def _refused(detail: str) -> InvalidRequest:
    return InvalidRequest([FieldProblem("#", detail)])
