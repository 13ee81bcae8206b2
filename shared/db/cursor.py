"""Where a page of a list ended."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last item's place in the order of creation, whatever the list is of."""

    created_at: datetime
    id: str
