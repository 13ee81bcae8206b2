"""Limits of tenants, set by the operator."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from shared.db.tables import tenants


class TenantRepository:
    """What tenants may have. Each method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def limit(self, tenant: str, *, max_running: int | None) -> None:
        """Set how many jobs a tenant may have announced or running at once; None is any number.

        It holds from the next pick on; jobs that run already go on.

        Raises:
            ValueError: The number is not positive.
        """
        if max_running is not None and max_running < 1:
            raise ValueError("a tenant may have one job at a time at least")
        values = {"id": tenant, "max_running": max_running}
        statement = insert(tenants).values(values)
        with self._engine.begin() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))
