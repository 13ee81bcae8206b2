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
    """Apply all missing migrations in one transaction."""
    with engine.begin() as connection:
        connection.execute(_LOCK)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def is_pending(engine: sa.Engine) -> bool:
    """Tell whether the schema is not the one that this code expects."""
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return current != ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
