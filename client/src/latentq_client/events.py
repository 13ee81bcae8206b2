"""A job's life as the service streams it."""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import httpx

from latentq_client.effects import Close, Emit, Flow, Open, Opened, Pause, ReadChunk, Send
from latentq_client.errors import ServiceRefused, ServiceUnreachable
from latentq_client.job import TERMINAL, Job, Progress
from latentq_client.jobs import path_of
from latentq_client.retrying import MAX_TRIES, RETRIED_STATUSES, name_of, pause_after

#: A stream that says nothing for so long is broken, in seconds; the service says something each 15.
SILENCE_S = 45.0


@dataclass(frozen=True, slots=True)
class Preview:
    """A rough picture of an output while its job runs."""

    output_index: int
    iteration: int
    content_type: str
    data: bytes

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Self:
        """Read the data of an event."""
        return cls(
            output_index=body["output_index"],
            iteration=body["iteration"],
            content_type=body["content_type"],
            data=base64.b64decode(body["data"]),
        )


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened to a job.

    `snapshot`, `succeeded`, `failed` and `canceled` come with the job, `progress` with its
    progress, `preview` with a preview. Types of later versions have their `data` only.
    """

    id: str
    type: str
    data: Mapping[str, Any]
    job: Job | None = None
    progress: Progress | None = None
    preview: Preview | None = None

    @property
    def is_last(self) -> bool:
        """Whether the job has ended with it."""
        return self.type in TERMINAL

    @classmethod
    def read(cls, id_: str, type_: str, data: str) -> Self:
        """Read an event of the stream."""
        body = json.loads(data)
        match type_:
            case "progress":
                return cls(id_, type_, body, progress=Progress.read(body))
            case "preview":
                return cls(id_, type_, body, preview=Preview.read(body))
            case _ if type_ == "snapshot" or type_ in TERMINAL:
                return cls(id_, type_, body, job=Job.read(body))
            case _:
                return cls(id_, type_, body)


class EventReader:
    """Reads server-sent events out of bytes that come in any pieces.

    By hand, since httpx ends lines where Unicode does, which JSON does not escape.
    """

    def __init__(self) -> None:
        #: The id to come back with.
        self.last_id = ""
        self._rest = b""
        self._type = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Take some bytes and return the events that they complete."""
        self._rest += chunk
        # A return at the end may be half of a line's end.
        held = b"\r" if self._rest.endswith(b"\r") else b""
        text = self._rest.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        self._rest = rest + held
        for line in lines:
            if line:
                self._take(line.decode("utf-8"))
            elif self._data:
                event = Event.read(self.last_id, self._type or "message", "\n".join(self._data))
                self._type, self._data = "", []
                yield event

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._type = value
            case "data":
                self._data.append(value)
            case "id":
                self.last_id = value


def follow_job(job_id: str, *, previews: bool = False) -> Flow[Event]:
    """Follow a job until it has ended, over as many streams as it takes.

    Each stream begins with a snapshot, so that nothing that still counts is missed.

    Raises:
        ServiceRefused: There is no such job (any more).
        ServiceUnreachable: Nobody answered, however often it was tried.
    """
    last_id, failures = "", 0
    while True:
        try:
            opened = yield Open(_request(job_id, last_id, previews=previews))
            answer: httpx.Response = opened.answer
            if answer.status_code == httpx.codes.NO_CONTENT:
                return
            if answer.is_error:
                yield from _refuse(opened, is_final=failures + 1 == MAX_TRIES)
            reader = EventReader()
            while (chunk := (yield ReadChunk(opened))) is not None:
                for event in reader.feed(chunk):
                    failures, last_id = 0, event.id or last_id
                    yield Emit(event)
                    if event.is_last:
                        return
            yield Close(opened)
            if failures + 1 == MAX_TRIES:
                raise ServiceUnreachable(f"streams of {job_id} end before they begin")
        except httpx.TransportError as error:
            if failures + 1 == MAX_TRIES:
                raise ServiceUnreachable(f"{name_of(error)} does not answer") from error
        failures += 1
        yield Pause(pause_after(failures))


def _request(job_id: str, last_id: str, *, previews: bool) -> Send:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
    params = {"previews": "true"} if previews else {}
    options = {"headers": headers, "params": params, "timeout": SILENCE_S}
    return Send("GET", path_of(job_id, "/events"), options)


def _refuse(opened: Opened, *, is_final: bool) -> Flow[Event]:
    """Read why there is no stream, and raise it unless it may be otherwise later."""
    body = b""
    while (chunk := (yield ReadChunk(opened))) is not None:
        body += chunk
    yield Close(opened)
    answer = opened.answer
    if is_final or answer.status_code not in RETRIED_STATUSES:
        raise ServiceRefused.read(httpx.Response(answer.status_code, content=body))
