"""Bring the schema to the version of this code."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

#: Only one process migrates at a time, whoever starts it.
_LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtext('latentq.migrate'))")


def upgrade(engine: sa.Engine) -> None:
    """Apply all missing migrations in one transaction; a newer schema stays as it is."""
    with engine.begin() as connection:
        connection.execute(_LOCK)
        if not _is_pending(connection):
            return
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def is_pending(engine: sa.Engine) -> bool:
    """Tell whether the schema is older than this code expects.

    A newer one serves as well: a version takes nothing away that the version before still needs.
    """
    with engine.connect() as connection:
        return _is_pending(connection)


def _is_pending(connection: sa.Connection) -> bool:
    current = MigrationContext.configure(connection).get_current_revision()
    scripts = ScriptDirectory.from_config(_config())
    # Revisions that this code does not know came after its own.
    older = {script.revision for script in scripts.walk_revisions()} - {scripts.get_current_head()}
    return current is None or current in older


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
