"""Passwords of the stores are replaced as docs/operations/keys.md says."""

import re
from collections.abc import Iterator

import pytest
import redis
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from cli.standalone.servers import Servers
from shared.db.migrate import is_pending, upgrade
from shared.db.session import make_engine
from shared.errors import ServiceUnavailable
from shared.queue import JobQueue
from tests.deploy.compose import ROOT

PAGE = (ROOT / "docs" / "operations" / "keys.md").read_text()
DATABASE = "credentials"


def url_of(servers: Servers, **changes: str) -> str:
    url = sa.make_url(servers.database_url).set(**changes)
    return url.render_as_string(hide_password=False)


@pytest.fixture
def admin(servers: Servers) -> Iterator[sa.Engine]:
    engine = make_engine(servers.database_url).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {DATABASE}"))
    yield engine
    with engine.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {DATABASE} WITH (FORCE)"))
        connection.execute(sa.text("DROP ROLE latentq_deputy"))
    engine.dispose()


def test_a_deputy_does_what_the_owner_of_the_database_does(
    servers: Servers, admin: sa.Engine
) -> None:
    (block,) = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    with admin.connect() as connection:
        connection.exec_driver_sql(block)
    (password,) = re.findall(r"PASSWORD '(\w+)'", block)
    deputy = make_engine(
        url_of(servers, username="latentq_deputy", password=password, database=DATABASE)
    )
    owner = make_engine(url_of(servers, database=DATABASE))
    # Whoever of them makes the tables: they are the owner's.
    upgrade(deputy)
    assert not is_pending(owner)
    owners = sa.text("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
    with owner.connect() as connection:
        assert list(connection.scalars(owners)) == ["latentq"]

    with admin.connect() as connection:
        connection.execute(sa.text("ALTER ROLE latentq_deputy NOLOGIN"))
    deputy.dispose()
    with pytest.raises(OperationalError), deputy.connect():
        pass
    for engine in (deputy, owner):
        engine.dispose()


def test_redis_takes_two_passwords_for_a_time(servers: Servers) -> None:
    old, new = servers.redis_url.split(":")[2].partition("@")[0], "another"
    other_url = servers.redis_url.replace(old, new)
    assert "`ACL SETUSER default >NEW`" in PAGE
    assert "`ACL SETUSER default <OLD`" in PAGE
    with redis.Redis.from_url(servers.redis_url) as operator:
        operator.execute_command("ACL", "SETUSER", "default", f">{new}")
        try:
            JobQueue(other_url).ping()
            JobQueue(servers.redis_url).ping()
        finally:
            operator.execute_command("ACL", "SETUSER", "default", f"<{new}")
    with pytest.raises(ServiceUnavailable):
        JobQueue(other_url).ping()
    JobQueue(servers.redis_url).ping()
