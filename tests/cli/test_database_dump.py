from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from cli.database_dump import dump_database, load_database
from cli.standalone.servers import Servers
from shared.db.jobs import JobRepository
from shared.db.restoration import RestorationRepository
from shared.db.session import make_engine
from shared.errors import ConfigurationError
from shared.job import NewJob

NewJobs = Callable[..., NewJob]
NAME = "loaded"


@pytest.fixture
def empty_url(servers: Servers) -> Iterator[str]:
    """A database without tables."""
    admin = make_engine(servers.database_url).execution_options(isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {NAME}"))
    yield sa.make_url(servers.database_url).set(database=NAME).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {NAME} WITH (FORCE)"))
    admin.dispose()


def test_a_database_comes_out_of_its_dump_as_it_went_in(
    database: sa.Engine, database_url: str, empty_url: str, make_job: NewJobs, tmp_path: Path
) -> None:
    jobs = JobRepository(database)
    made = [jobs.insert(make_job(prompt="ein grüner Stern"))[0] for _ in range(3)]
    jobs.request_cancel("tenant", made[0].id)
    dump_database(database_url, tmp_path / "dump")
    loaded = make_engine(empty_url)
    restoration = RestorationRepository(loaded)
    assert restoration.is_empty()
    load_database(empty_url, tmp_path / "dump")
    assert not restoration.is_empty()
    assert list(restoration.result_keys()) == []
    for job in made:
        assert JobRepository(loaded).get("tenant", job.id) == jobs.get("tenant", job.id)
    # Triggers came along: what happens there is history there.
    JobRepository(loaded).request_cancel("tenant", made[1].id)
    with loaded.connect() as connection:
        query = sa.text("SELECT to_status FROM transitions WHERE job_id = :id ORDER BY id")
        told = list(connection.scalars(query, {"id": made[1].id}))
    loaded.dispose()
    assert told == ["queued", "canceled"]
    # All or nothing: what is there already is in the way.
    with pytest.raises(ConfigurationError, match="pg_restore did not succeed"):
        load_database(empty_url, tmp_path / "dump")


def test_a_refusal_says_why_and_not_the_password(servers: Servers, tmp_path: Path) -> None:
    url = sa.make_url(servers.database_url)
    nowhere = url.set(database="nothing").render_as_string(hide_password=False)
    with pytest.raises(ConfigurationError, match="does not exist") as refused:
        dump_database(nowhere, tmp_path / "dump")
    assert str(url.password) not in refused.value.detail
