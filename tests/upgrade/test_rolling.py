"""Two releases on the same stores, under load: nobody notices."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from bench.cluster import open_store
from cli.standalone.servers import Servers
from cli.standalone.state import DataDir
from shared.db.keys import KeyRepository, mint_key
from shared.db.session import make_engine
from shared.job import AttemptOutcome
from tests.chaos.evidence import fetch_file, read_history
from tests.chaos.history import check
from tests.fixtures.receiver import run_receiver
from tests.fixtures.stack import wait_until
from tests.upgrade.load import Load
from tests.upgrade.release import CURRENT, PREVIOUS, Fleet, Release, check_out, is_known

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

#: In which order a release goes out, each process when the one before it serves.
ORDER = ("api", "dispatcher", "worker-1", "worker-2")
#: How an attempt may end while nothing is wrong: what is handed back is not lost.
IN_ORDER = {AttemptOutcome.SUCCEEDED, AttemptOutcome.CANCELED, AttemptOutcome.RELEASED}
TENANT = "upgrade"


@pytest.fixture
def previous(tmp_path: Path) -> Iterator[Release]:
    if not is_known(PREVIOUS):
        pytest.skip(f"{PREVIOUS} is not in this clone: fetch the whole history")
    release = check_out(PREVIOUS, tmp_path / "previous")
    yield release
    shutil.rmtree(release.folder)


@pytest.fixture
def servers(server_folder: Path) -> Iterator[Servers]:
    """Servers without a schema, whatever ran before."""
    folder = server_folder / "upgrade"
    with DataDir(folder) as data_dir, Servers(data_dir) as running:
        yield running
    shutil.rmtree(folder)


@pytest.fixture
def fleet(servers: Servers, tmp_path: Path) -> Iterator[Fleet]:
    variables = servers.environment() | {
        "LATENTQ_DEVICE": "cpu",
        # Whoever loses a lease has lost it to another version, not to a busy machine.
        "LATENTQ_LEASE_S": "60",
        "LATENTQ_GRACE_S": "60",
        "LATENTQ_WEBHOOK_ALLOW_LOOPBACK": "true",
    }
    fleet = Fleet(tmp_path / "processes", variables)
    yield fleet
    fleet.close()


@pytest.fixture
def database(servers: Servers) -> Iterator[sa.Engine]:
    engine = make_engine(servers.database_url)
    yield engine
    engine.dispose()


def test_processes_run_the_code_of_their_release(
    previous: Release, fleet: Fleet, database: sa.Engine
) -> None:
    seen = []
    for release in (previous, CURRENT):
        fleet.run(release, "migrate")
        with database.connect() as connection:
            seen.append(connection.scalar(sa.text("SELECT version_num FROM alembic_version")))
        versions = release.folder / "shared" / "db" / "migrations" / "versions"
        assert seen[-1] == max(path.name[:4] for path in versions.glob("0*.py"))
    # There is something to be upgraded.
    assert seen[0] < seen[1]


def test_releases_serve_side_by_side_and_nobody_notices(
    previous: Release, fleet: Fleet, servers: Servers, database: sa.Engine
) -> None:
    fleet.run(previous, "migrate")
    api_key = mint_key()
    KeyRepository(database).ensure(api_key, tenant=TENANT, name="upgrade")
    for name in ORDER:
        fleet.start(name, previous)

    with (
        run_receiver() as receiver,
        Load(fleet.api_url, api_key=api_key, receiver_url=receiver.url) as load,
    ):
        load.prove("the previous release alone")
        fleet.run(CURRENT, "migrate")
        load.prove("the previous release on the new schema")
        for release in (CURRENT, previous):
            for name in ORDER:
                replace(fleet, load, name, release)
                load.prove(f"{name} of {release.name}")
        load.finish()
        assert load.errors == []
        wait_until(partial(is_told, database), timeout_s=60)

    history = read_history(
        database, partial(fetch_file, open_store(servers)), load.accepted, (), receiver.received
    )
    assert check(history) == []
    attempts = [attempt for job in history.jobs.values() for attempt in job.attempts]
    assert {attempt.outcome for attempt in attempts} <= IN_ORDER
    # Workers were told to leave in the middle of jobs, and those went on elsewhere.
    assert AttemptOutcome.RELEASED in {attempt.outcome for attempt in attempts}
    assert fleet.complaints() == []


def replace(fleet: Fleet, load: Load, name: str, release: Release) -> None:
    """Put a process of a release in another's place, the new one first."""
    former, former_url = fleet.newest[name], fleet.api_url
    fleet.start(name, release)
    if name == "api":
        load.serve_by(former_url, fleet.api_url)
        load.prove(f"two APIs, one of {release.name}")
        load.serve_by(fleet.api_url)
    fleet.stop(former)


def is_told(database: sa.Engine) -> bool:
    """Tell whether no webhook is under way any more."""
    query = "SELECT count(*) FROM deliveries WHERE status = 'pending'"
    with database.connect() as connection:
        return connection.execute(sa.text(query)).scalar_one() == 0
