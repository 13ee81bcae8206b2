"""How a client would like to be answered: RFC 7240's `Prefer`, as far as it is known here."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header

#: The longest that a request is held, in seconds; who prefers longer is held so long.
MAX_WAIT_S = 60

# Commas and semicolons inside a quoted string part nothing.
_QUOTED = r'"(?:[^"\\]|\\.)*+"?'
_PREFERENCE = re.compile(rf'(?:[^,"]|{_QUOTED})++')
_BEFORE_PARAMETERS = re.compile(rf'(?:[^;"]|{_QUOTED})*+')
_SECONDS = re.compile(r"0*(\d{1,9})|\d+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a client prefers; what is not known, or not well formed, is ignored as the RFC asks."""

    #: For how long an answer may wait for the job's end; None if it shall come at once.
    wait_s: int | None = None
    respond_async: bool = False

    def applied(self, *, is_async: bool = False) -> str | None:
        """Write `Preference-Applied`; `is_async` says that the job may end after the answer."""
        applied = ["respond-async"] if is_async and self.respond_async else []
        if self.wait_s is not None:
            applied.append(f"wait={self.wait_s}")
        return ", ".join(applied) or None


def parse_preferences(headers: Iterable[str]) -> Preferences:
    """Read all `Prefer` headers of a request; of a preference that comes twice the first counts."""
    found: dict[str, str] = {}
    for preference in _PREFERENCE.findall(",".join(headers)):
        # Always matches: it may be empty.
        head = _BEFORE_PARAMETERS.match(preference)[0]  # type: ignore[index]
        name, _, value = head.partition("=")
        found.setdefault(name.strip().lower(), value.strip().removeprefix('"').removesuffix('"'))
    return Preferences(
        wait_s=_read_seconds(found["wait"]) if "wait" in found else None,
        respond_async="respond-async" in found,
    )


async def read_preferences(
    prefer: Annotated[
        list[str] | None,
        Header(
            description=f"RFC 7240. `wait=N` holds the answer until the job has ended, for up to N "
            f"seconds and at most {MAX_WAIT_S}; `respond-async` answers at once. Others are "
            "ignored. `Preference-Applied` says what was done.",
            examples=["wait=30"],
        ),
    ] = None,
) -> Preferences:
    """Read the preferences of the request."""
    return parse_preferences(prefer or ())


PreferencesOf = Annotated[Preferences, Depends(read_preferences)]


def _read_seconds(value: str) -> int | None:
    if not value:
        return MAX_WAIT_S  # a bare `wait`, as Replicate's client sends it: as long as may be
    match = _SECONDS.fullmatch(value)
    if match is None:
        return None
    return MAX_WAIT_S if match[1] is None else min(int(match[1]), MAX_WAIT_S)
