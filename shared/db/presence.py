"""Which dispatchers are alive."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from shared.db.tables import dispatchers


class DispatcherRepository:
    """Note the dispatchers that are alive. Each method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def beat(self, dispatcher_id: str) -> None:
        """Say that a dispatcher is alive."""
        statement = insert(dispatchers).values(id=dispatcher_id)
        statement = statement.on_conflict_do_update(
            index_elements=["id"], set_={"heartbeat_at": sa.func.now()}
        )
        with self._engine.begin() as connection:
            connection.execute(statement)

    def leave(self, dispatcher_id: str) -> None:
        """Say that a dispatcher has gone."""
        with self._engine.begin() as connection:
            connection.execute(dispatchers.delete().where(dispatchers.c.id == dispatcher_id))
