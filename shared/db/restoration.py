"""What a database must be, and is, when it comes out of a backup."""

from collections.abc import Iterator

import sqlalchemy as sa

from shared.db.tables import artifacts

#: Rows that are held at once.
BATCH = 1000


class RestorationRepository:
    """Look at a database before and after a restore."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def is_empty(self) -> bool:
        """Tell whether there are no tables yet."""
        return not sa.inspect(self._engine).get_table_names()

    def result_keys(self) -> Iterator[str]:
        """Go through the keys of all results that jobs show."""
        with self._engine.connect() as connection:
            streaming = connection.execution_options(yield_per=BATCH)
            yield from streaming.scalars(sa.select(artifacts.c.key))
