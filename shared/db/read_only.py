"""Whether the service takes changes: one row, there while it does not."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from shared.db.tables import read_only


@dataclass(frozen=True, slots=True)
class ReadOnlyNotice:
    """Since when callers can only read, and what they are told of it."""

    since: datetime
    reason: str


class ReadOnlyRepository:
    """Close the service to changes, and open it. Each method is one statement."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def find(self) -> ReadOnlyNotice | None:
        """Return the notice, or None while the service takes changes."""
        with self._engine.connect() as connection:
            return find_notice(connection)

    def turn_on(self, reason: str) -> ReadOnlyNotice:
        """Close the service; one that is closed stays so and gives the new reason."""
        statement = (
            insert(read_only)
            .values(reason=reason)
            .on_conflict_do_update(index_elements=["id"], set_={"reason": reason})
            .returning(read_only)
        )
        with self._engine.begin() as connection:
            row = connection.execute(statement).one()
        return ReadOnlyNotice(row.since, row.reason)

    def turn_off(self) -> bool:
        """Open the service; returns whether it was closed."""
        with self._engine.begin() as connection:
            return connection.execute(read_only.delete()).rowcount > 0


def find_notice(connection: sa.Connection) -> ReadOnlyNotice | None:
    """Return the notice as a transaction sees it."""
    row = connection.execute(sa.select(read_only)).one_or_none()
    return None if row is None else ReadOnlyNotice(row.since, row.reason)
