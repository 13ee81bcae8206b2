"""A standby takes over from a PostgreSQL that dies: jobs go on, and what was accepted is there."""

import dataclasses
import os
import pwd
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

import httpx
import pytest
import sqlalchemy as sa

from bench.cluster import TENANT, Cluster, open_store, wait_until, warm_up
from cli.standalone import postgres
from cli.standalone.child import Child
from cli.standalone.servers import Servers
from cli.standalone.state import DataDir, choose_port
from shared.db.jobs import JobRepository
from shared.db.session import make_engine
from shared.job import JobStatus
from tests.chaos.evidence import fetch_file, read_history
from tests.chaos.history import check
from tests.chaos.system import LEASE_S, PATIENCE_S, REDISPATCH_S, STEP_S

PROCESSES = ("api", "dispatcher", "worker-1")
#: How long nobody is the primary, in seconds.
INTERREGNUM_S = 1.5


@dataclasses.dataclass(frozen=True)
class Pair:
    """A primary and a standby that has all that was ever committed."""

    primary: Child
    standby: Child
    primary_url: str
    standby_url: str

    @property
    def url(self) -> str:
        """What clients connect by, whichever is the primary."""
        second = urlsplit(self.standby_url)
        first = urlsplit(self.primary_url)
        hosts = f"{first.netloc},{second.hostname}:{second.port}"
        return f"postgresql://{hosts}{first.path}?target_session_attrs=read-write"

    def fail_over(self) -> None:
        """Kill the primary, and after a while make the standby one."""
        self.primary.kill()
        assert self.primary.wait(timeout_s=PATIENCE_S)
        time.sleep(INTERREGNUM_S)
        ask(self.standby_url, "SELECT pg_promote(true, 30)")


def ask(url: str, *statements: str) -> object:
    """Have one server carry out statements; returns what the last one said."""
    engine = make_engine(url).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        answers = [connection.execute(sa.text(statement)) for statement in statements]
        answer = answers[-1].scalar() if answers[-1].returns_rows else None
    engine.dispose()
    return answer


@contextmanager
def replicated(data_dir: DataDir, servers: Servers) -> Iterator[Pair]:
    """Give a primary a standby, and have commits wait for it."""
    folder, port = data_dir.path / "standby", choose_port()
    account = pwd.getpwnam(postgres.ensure_account()) if os.geteuid() == 0 else None
    folder.mkdir(mode=0o700)
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)
    programs = postgres.find_programs()
    subprocess.run(
        [
            *(programs / "pg_basebackup", "--pgdata", folder, "--write-recovery-conf"),
            *("--checkpoint", "fast", "--dbname", servers.database_url),
        ],
        env={"PATH": str(programs), "LC_ALL": "C"},
        user=account and account.pw_uid,
        group=account and account.pw_gid,
        extra_groups=account and [],
        check=True,
    )
    spec = postgres.describe(data_dir, port)
    standby = Child(
        dataclasses.replace(
            spec,
            command=[
                word.replace(str(data_dir.path / "postgres"), str(folder)) for word in spec.command
            ],
            log_path=data_dir.logs / "standby.log",
            prepare=lambda: None,
        )
    )
    standby.start()
    try:
        standby.wait_until_ready(Event())
        ask(
            servers.database_url,
            "ALTER SYSTEM SET synchronous_standby_names = '*'",
            "SELECT pg_reload_conf()",
        )
        in_step = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        wait_until(lambda: ask(servers.database_url, in_step), timeout_s=PATIENCE_S)
        standby_url = postgres.url(data_dir, port, database=postgres.DATABASE)
        yield Pair(servers.postgres, standby, servers.database_url, standby_url)
    finally:
        standby.kill()
        standby.wait(timeout_s=PATIENCE_S)


def submit(cluster: Cluster, number: int) -> str:
    """Submit a job, however often it takes, and return its id."""
    body = {"prompt": "a red star", "steps": 40, "seed": number, "guidance": 1, "sampler": "ddim"}
    headers = {
        "Authorization": f"Bearer {cluster.api_key}",
        "Idempotency-Key": f"failover-{number}",
    }

    def post() -> str | None:
        try:
            answer = httpx.post(
                f"{cluster.base_url}/v1/jobs", json=body, headers=headers, timeout=10
            )
        except httpx.TransportError:
            return None
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return None
        job_id: str = answer.raise_for_status().json()["id"]
        return job_id

    return wait_until(post, timeout_s=PATIENCE_S) or ""


@pytest.mark.slow
def test_jobs_go_on_at_a_standby_that_takes_over(server_folder: Path) -> None:
    warm_up()
    with (
        DataDir(server_folder / "failover") as data_dir,
        Servers(data_dir) as servers,
        replicated(data_dir, servers) as pair,
        Cluster(
            servers,
            data_dir.logs,
            variables={
                "LATENTQ_DATABASE_URL": pair.url,
                "LATENTQ_LEASE_S": f"{LEASE_S:g}",
                "LATENTQ_REDISPATCH_S": f"{REDISPATCH_S:g}",
            },
            step_s=STEP_S,
        ) as cluster,
    ):
        for name in PROCESSES:
            cluster.start(name)
        for name in PROCESSES:
            cluster.wait_until_ready(name)
        before = [submit(cluster, number) for number in range(6)]
        pair.fail_over()
        # The last ones come while the processes look for the new primary.
        accepted = [*before, *(submit(cluster, number) for number in range(6, 10))]

        database = make_engine(pair.url)
        jobs = JobRepository(database)

        def are_over() -> bool:
            return all(jobs.get(TENANT, job_id).status.is_terminal for job_id in accepted)

        wait_until(are_over, timeout_s=PATIENCE_S)
        assert {jobs.get(TENANT, job_id).status for job_id in accepted} == {JobStatus.SUCCEEDED}
        history = read_history(database, partial(fetch_file, open_store(servers)), accepted, [], [])
        violations = check(history)
        assert not violations, "\n".join(map(str, violations))
        # The very processes that lost the primary went on.
        assert set(cluster.running()) == set(PROCESSES)
        database.dispose()
