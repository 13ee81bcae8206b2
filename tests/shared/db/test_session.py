"""What a URL means, and when a server counts as away."""

from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from shared.db.session import DATABASE_AWAY, make_engine
from shared.errors import ConfigurationError

WHO_IS_THERE = sa.text("SELECT pg_backend_pid()")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://latentq:canary@db/latentq",
        "host=db password=canary",
        "postgresql://latentq:canary@[db/latentq",
        "canary",
        "",
    ],
)
def test_what_is_no_url_of_postgresql_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="LATENTQ_DATABASE_URL") as caught:
        make_engine(url)
    assert "canary" not in caught.value.detail
    assert caught.value.__cause__ is None


def test_an_engine_does_not_show_its_password(database_url: str) -> None:
    assert (urlsplit(database_url).password or "") not in repr(make_engine(database_url))


def test_the_first_address_that_takes_writes_is_used(database_url: str) -> None:
    there = urlsplit(database_url)
    hosts = f"{there.username}:{there.password}@127.0.0.1:1,{there.hostname}:{there.port}"
    engine = make_engine(f"postgresql://{hosts}{there.path}?target_session_attrs=read-write")
    with engine.connect() as connection:
        assert connection.execute(WHO_IS_THERE).scalar_one()
    engine.dispose()
    none = make_engine(f"postgresql://{hosts}{there.path}?target_session_attrs=standby")
    with pytest.raises(DATABASE_AWAY), none.connect():
        pass


def test_a_primary_that_is_none_any_more_counts_as_away(database_url: str) -> None:
    engine = make_engine(database_url, pool_size=2)
    with engine.connect() as other:
        idle = other.execute(WHO_IS_THERE).scalar_one()
    with engine.connect() as connection:
        connection.exec_driver_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        connection.commit()
        with pytest.raises(DATABASE_AWAY):
            connection.exec_driver_sql("CREATE TABLE nobody_makes_this ()")
        assert connection.invalidated
    # All connections of the pool led there: none is used again.
    with engine.connect() as connection:
        assert connection.execute(WHO_IS_THERE).scalar_one() != idle
    engine.dispose()
