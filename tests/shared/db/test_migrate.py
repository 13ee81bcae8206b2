from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from cli.standalone.servers import Servers
from shared.db.migrate import _config, is_pending, upgrade
from shared.db.session import make_engine
from shared.db.tables import metadata


@pytest.fixture
def fresh(servers: Servers) -> Iterator[sa.Engine]:
    """A database that nobody has touched."""
    admin = make_engine(servers.database_url).execution_options(isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text("DROP DATABASE IF EXISTS migrations WITH (FORCE)"))
        connection.execute(sa.text("CREATE DATABASE migrations"))
    engine = make_engine(
        sa.make_url(servers.database_url)
        .set(database="migrations")
        .render_as_string(hide_password=False)
    )
    yield engine
    engine.dispose()
    admin.dispose()


def test_migrations_lead_to_the_tables_of_the_code(fresh: sa.Engine) -> None:
    assert is_pending(fresh)
    upgrade(fresh)
    assert not is_pending(fresh)
    with fresh.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    assert differences == []
    upgrade(fresh)  # again: nothing to do


def test_a_newer_schema_serves_and_stays_as_it_is(fresh: sa.Engine) -> None:
    upgrade(fresh)
    for version, is_older in (("0001", True), ("9999", False)):
        with fresh.begin() as connection:
            statement = sa.text("UPDATE alembic_version SET version_num = :version")
            connection.execute(statement, {"version": version})
        assert is_pending(fresh) is is_older
    upgrade(fresh)
    with fresh.connect() as connection:
        assert connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == "9999"


def test_migrations_can_be_taken_back(fresh: sa.Engine) -> None:
    upgrade(fresh)
    with fresh.begin() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert sa.inspect(fresh).get_table_names() == ["alembic_version"]
    upgrade(fresh)
    assert not is_pending(fresh)
