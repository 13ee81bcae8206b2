"""A job as the service shows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

TERMINAL = frozenset({"succeeded", "failed", "canceled"})


@dataclass(frozen=True, slots=True)
class Progress:
    """Forwards done, of how many; `eta_s` is an estimate of the rest in seconds."""

    iteration: int
    iterations: int
    eta_s: float | None

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Self:
        """Read the member of a job's body."""
        return cls(body["iteration"], body["iterations"], body["eta_s"])


@dataclass(frozen=True, slots=True)
class Artifact:
    """One output; `url` and `thumbnail_url` need no key and work until `url_expires_at`.

    A picture has a size, a sound a duration and a rate in samples a second.
    """

    index: int
    url: str
    url_expires_at: datetime
    content_type: str
    width: int | None
    height: int | None
    duration_s: float | None
    sample_rate: int | None
    seed: int
    sha256: str
    num_bytes: int
    #: A small picture of it: of a sound its waveform above its spectrogram.
    thumbnail_url: str | None

    @property
    def is_sound(self) -> bool:
        """Whether it is a sound, and no picture."""
        return self.duration_s is not None


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed."""

    code: str
    message: str | None


@dataclass(frozen=True, slots=True)
class Job:
    """A job; `raw` is the whole answer, members of later versions included."""

    id: str
    status: str
    request: Mapping[str, Any]
    preset: str
    progress: Progress
    artifacts: tuple[Artifact, ...]
    error: JobError | None
    execution: Mapping[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    raw: Mapping[str, Any]

    @property
    def is_terminal(self) -> bool:
        """Whether the job can never change again."""
        return self.status in TERMINAL

    @property
    def extension(self) -> str:
        """File extension of the outputs."""
        return str(self.request["output_format"])

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Self:
        """Read the body of an answer; members it does not know are left in `raw`."""
        error = body["error"]
        return cls(
            id=body["id"],
            status=body["status"],
            request=body["request"],
            preset=body["preset"]["name"],
            progress=Progress.read(body["progress"]),
            artifacts=tuple(_read_artifact(artifact) for artifact in body["artifacts"]),
            error=JobError(error["code"], error["message"]) if error else None,
            execution=body["execution"],
            created_at=datetime.fromisoformat(body["created_at"]),
            started_at=_read_time(body["started_at"]),
            finished_at=_read_time(body["finished_at"]),
            raw=body,
        )


def _read_artifact(body: Mapping[str, Any]) -> Artifact:
    return Artifact(
        index=body["index"],
        url=body["url"],
        url_expires_at=datetime.fromisoformat(body["url_expires_at"]),
        content_type=body["content_type"],
        width=body["width"],
        height=body["height"],
        duration_s=body["duration_s"],
        sample_rate=body["sample_rate"],
        seed=body["seed"],
        sha256=body["sha256"],
        num_bytes=body["bytes"],
        thumbnail_url=body["thumbnail_url"],
    )


def _read_time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
