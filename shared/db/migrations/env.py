"""Run by Alembic: upgrades over the connection that `shared.db.migrate` hands in."""

from alembic import context

import shared.db.webhook_tables  # noqa: F401 - adds its tables to the metadata
from shared.db.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
