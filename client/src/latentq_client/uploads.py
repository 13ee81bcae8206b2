"""Calls that store pictures for jobs to come."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from latentq_client.effects import Steps, Work
from latentq_client.retrying import send

#: Larger files go straight to the store, in bytes.
STRAIGHT_ABOVE = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """A stored picture; its id goes into `init_image` or `mask` of a job."""

    id: str
    content_type: str
    num_bytes: int
    sha256: str

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Self:
        """Read the body of an answer."""
        return cls(
            id=body["id"],
            content_type=body["content_type"],
            num_bytes=body["bytes"],
            sha256=body["sha256"],
        )


def upload_picture(picture: Path | str | bytes) -> Steps[Upload]:
    """Store a picture: through the service, or straight where its size would weigh on that."""
    data: bytes
    if isinstance(picture, bytes):
        data = picture
    else:
        data = yield Work(Path(picture).read_bytes)
    content_type = recognize(data)
    # What is no picture is for the service to refuse, in its own words.
    if len(data) <= STRAIGHT_ABOVE or content_type is None:
        return Upload.read((yield from send("POST", "/v1/uploads", files={"file": data})).json())
    announced = {"content_type": content_type, "bytes": len(data)}
    form = (yield from send("POST", "/v1/uploads", json=announced)).json()
    yield from send("POST", form["url"], data=form["fields"], files={"file": data}, is_link=True)
    path = f"/v1/uploads/{quote(form['id'], safe='')}/complete"
    return Upload.read((yield from send("POST", path)).json())


def recognize(data: bytes) -> str | None:
    """Tell the type of a picture by how it begins; None for what jobs do not take."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    return None
