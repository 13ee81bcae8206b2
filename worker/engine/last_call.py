"""Which jobs are worth waiting for when an engine takes no more."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)


def choose_to_finish(left_ms: Mapping[KeyT, float | None], *, within_ms: float) -> set[KeyT]:
    """Choose the jobs to be finished: the shortest first, as long as all of them fit one by one.

    Args:
        left_ms: How long each would take alone; None where nobody knows.
        within_ms: How long all of them may take. Sharing forwards makes them faster, never slower.
    """
    known = {key: ms for key, ms in left_ms.items() if ms is not None}
    chosen: set[KeyT] = set()
    total_ms = 0.0
    for key in sorted(known, key=lambda key: known[key]):
        total_ms += known[key]
        if total_ms > within_ms:
            break
        chosen.add(key)
    return chosen
