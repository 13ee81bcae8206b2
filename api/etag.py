"""Weak entity tags of jobs: a poll costs one look at a primary key while nothing has changed."""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

from fastapi import Header

from shared.job import JobStamp, JobStatus

#: How often the place of a queued job is worth another look, in seconds.
QUEUE_PERIOD_S = 10

IfNoneMatch = Annotated[
    list[str] | None,
    Header(description="Tags of what the client has; the answer is 304 if it has the newest"),
]

_HEADERS = {
    "ETag": {"description": "Names this moment of the job", "schema": {"type": "string"}},
    "Preference-Applied": {
        "description": "Which preferences the answer follows",
        "schema": {"type": "string"},
    },
}
#: For the documentation of routes that answer with a tag.
WITH_ETAG: dict[str, Any] = {"headers": _HEADERS}
NOT_MODIFIED: dict[str, Any] = WITH_ETAG | {"description": "Nothing has changed"}

_TAG = re.compile(r'(?:W/)?"([^"]*)"')


def make_etag(stamp: JobStamp, *, now: datetime, link_ttl_s: int) -> str:
    """Name what a client sees of a job: another name once any of it may have changed.

    Time counts where the answer goes by the time: the place in the queue moves, and links run out.
    These are named anew after half their life, so that nobody is told to keep dead ones.
    """
    parts = [stamp.attempt, stamp.iteration, stamp.status]
    match stamp.status:
        case JobStatus.QUEUED:
            parts.append(int(now.timestamp()) // QUEUE_PERIOD_S)
        case JobStatus.SUCCEEDED:
            parts.append(int(now.timestamp() / (link_ttl_s / 2)))
    return f'W/"{"-".join(map(str, parts))}"'


def is_known(etag: str, if_none_match: Iterable[str]) -> bool:
    """Tell whether a client has what a tag names, by its `If-None-Match` headers.

    Compared weakly, as RFC 9110 asks; `*` is whatever there is.
    """
    given = ",".join(if_none_match)
    return given.strip() == "*" or _TAG.findall(etag)[0] in _TAG.findall(given)
