"""How many rows of a forward fit into the device's memory, as far as it was found out."""

from collections.abc import Hashable
from dataclasses import dataclass

#: Forwards after which one row more is tried.
RECOVER_AFTER = 64


@dataclass(slots=True)
class _Cap:
    rows: int
    #: The least that did not fit; what reaches it is free again.
    overflow: int
    #: Forwards since the cap was changed.
    forwards: int = 0


class Headroom:
    """Caps of the keys whose forwards did not fit; others have none. The step thread's own.

    Halved at each forward that does not fit, and one row higher after many that do: what else holds
    memory comes and goes.

    Source: Chiu & Jain (1989), additive increase and multiplicative decrease.
    """

    def __init__(self) -> None:
        self._caps: dict[Hashable, _Cap] = {}

    def cap(self, key: Hashable, *, max_rows: int) -> int:
        """Return the most rows that a forward of a key may have."""
        known = self._caps.get(key)
        return max_rows if known is None else min(known.rows, max_rows)

    def shrink(self, key: Hashable, rows: int) -> None:
        """Note that a forward of some rows, two at least, did not fit."""
        self._caps[key] = _Cap(rows // 2, overflow=rows)

    def note_fit(self, key: Hashable) -> None:
        """Note that a forward of a key fitted."""
        known = self._caps.get(key)
        if known is None:
            return
        known.forwards += 1
        if known.forwards < RECOVER_AFTER:
            return
        known.rows += 1
        known.forwards = 0
        if known.rows > known.overflow:
            del self._caps[key]
