"""Run by Alembic: upgrades over the connection that `shared.db.migrate` hands in."""

from alembic import context

from shared.db.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
