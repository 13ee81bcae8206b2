import base64
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentq_client import ServiceRefused, ServiceUnreachable
from latentq_client.events import EventReader
from tests.client.service import JOB, Service, job, lost, problem

Serve = Callable[..., Service]


class Chunks(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in pieces, that ends or breaks."""

    def __init__(self, *chunks: bytes, breaks: bool = False) -> None:
        self._chunks = chunks
        self._breaks = breaks

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        if self._breaks:
            raise httpx.ReadError("broken")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk


def event(id_: int, type_: str, body: Any = JOB) -> bytes:
    return f"event: {type_}\nid: {id_}\nretry: 3000\ndata: {json.dumps(body)}\n\n".encode()


def stream(*chunks: bytes, breaks: bool = False) -> Callable[[], httpx.Response]:
    return lambda: httpx.Response(200, stream=Chunks(*chunks, breaks=breaks))


PROGRESS = {"iteration": 2, "iterations": 4, "eta_s": None}
PREVIEW = {
    "output_index": 0,
    "iteration": 2,
    "content_type": "image/webp",
    "data": base64.b64encode(b"picture").decode(),
}


def follow(service: Service, count: int | None = None, *, previews: bool = False) -> list[Any]:
    mine = service.call("get", "job_1")
    service.requests.clear()
    return service.caller.take(mine, "events", count=count, previews=previews)


def test_a_stream_is_read_to_the_end_of_the_job(serve: Serve) -> None:
    ended = JOB | {"status": "succeeded"}
    parts = [
        event(1, "snapshot"),
        b": ping\n\n",
        event(2, "progress", PROGRESS),
        event(3, "preview", PREVIEW),
        event(4, "of a later version", {"x": 1}),
        event(5, "succeeded", ended),
        event(6, "never read"),
    ]
    service = serve(job(), stream(*parts))
    snapshot, progress, preview, unknown, last = follow(service, previews=True)
    assert snapshot.job.id == "job_1"
    assert progress.progress.iteration == 2
    assert preview.preview.data == b"picture"
    assert unknown.data == {"x": 1}
    assert last.is_last
    assert last.job.status == "succeeded"
    (request,) = service.requests
    assert request.headers["Accept"] == "text/event-stream"
    assert request.url.query == b"previews=true"
    assert "Last-Event-ID" not in request.headers


@pytest.mark.parametrize("breaks", [True, False])
def test_a_stream_that_ends_early_is_taken_up_where_it_was(serve: Serve, breaks: bool) -> None:
    ended = event(9, "succeeded", JOB | {"status": "succeeded"})
    service = serve(
        job(),
        stream(event(1, "snapshot"), b"event: progr", breaks=breaks),
        lost(),
        problem(503),
        stream(event(2, "snapshot"), ended),
    )
    assert [one.id for one in follow(service)] == ["1", "2", "9"]
    ids = [request.headers.get("Last-Event-ID") for request in service.requests]
    assert ids == [None, "1", "1", "1"]


def test_who_has_seen_the_end_is_told_no_more(serve: Serve) -> None:
    service = serve(job(), stream(event(1, "snapshot"), breaks=True), httpx.Response(204))
    assert [one.id for one in follow(service)] == ["1"]


@pytest.mark.parametrize(
    ("answer", "error", "tries"),
    [
        (lost(), ServiceUnreachable, 5),
        (stream(b": ping\n\n"), ServiceUnreachable, 5),
        (lambda: problem(503), ServiceRefused, 5),
        (lambda: problem(404), ServiceRefused, 1),
    ],
)
def test_a_stream_that_does_not_come_is_given_up(
    serve: Serve, answer: Any, error: type[Exception], tries: int
) -> None:
    service = serve(job(), answer)
    with pytest.raises(error):
        follow(service)
    assert len(service.requests) == tries


def test_who_has_seen_enough_goes(serve: Serve) -> None:
    service = serve(job(), stream(event(1, "snapshot"), breaks=True))
    assert len(follow(service, count=1)) == 1


@given(
    bodies=st.lists(st.dictionaries(st.text(), st.text(), max_size=3), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 400), max_size=8),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_pieces_of_any_size_make_the_same_events(
    bodies: Sequence[dict[str, str]], cuts: list[int], end: str
) -> None:
    lines = [
        f"id: {number}{end}event: any{end}data: {json.dumps(body, ensure_ascii=False)}{end}{end}"
        for number, body in enumerate(bodies)
    ]
    # What ends lines for Python, but not in a stream, stays what it is.
    content = "".join(lines).encode()
    expected = [json.loads(json.dumps(body)) for body in bodies]
    places = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    reader = EventReader()
    read = [
        one
        for start, stop in itertools.pairwise(places)
        for one in reader.feed(content[start:stop])
    ]
    read += reader.feed(b"\n")
    assert [one.id for one in read] == [str(number) for number in range(len(bodies))]
    assert [dict(one.data) for one in read] == expected
