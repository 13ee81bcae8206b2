"""The Idempotency-Key header, and what makes two bodies the same."""

import hashlib
import json
import re
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request

from api.problems import RequestRefused

HEADER = "Idempotency-Key"
#: A structured-field string as the draft has it, or the bare value that most clients send.
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE = re.compile(r"[\x21\x23-\x7e][\x20-\x7e]*")
_ESCAPE = re.compile(r'\\(["\\])')
_MAX_CHARACTERS = 255
#: For the documentation of routes that read one.
WITH_KEY: dict[str, Any] = {
    "parameters": [
        {
            "name": HEADER,
            "in": "header",
            "required": False,
            "description": f"1 to {_MAX_CHARACTERS} printable ASCII characters, in double quotes "
            "or bare; the same request with the same key is done once",
            "schema": {"type": "string"},
        }
    ]
}


def read_key(request: Request) -> str | None:
    """Return the request's key, or None without one.

    Raises:
        RequestRefused: The header is there and is no key.
    """
    values = request.headers.getlist(HEADER)
    if not values:
        return None
    key = _unquote(values[0].strip()) if len(values) == 1 else None
    if key is None or not 1 <= len(key) <= _MAX_CHARACTERS:
        raise RequestRefused(
            f"send one {HEADER} of 1 to {_MAX_CHARACTERS} printable ASCII characters, "
            "in double quotes or bare",
            code="invalid_idempotency_key",
        )
    return key


def fingerprint(body: BaseModel) -> str:
    """Hash what a body says; the order of its members and the spelling of numbers do not count."""
    said = body.model_dump(mode="json", exclude_unset=True)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _unquote(value: str) -> str | None:
    if quoted := _QUOTED.fullmatch(value):
        return _ESCAPE.sub(r"\1", quoted[1])
    return value if _BARE.fullmatch(value) else None
