"""A backup brings everything back, on servers that know nothing of those before."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import sqlalchemy as sa

from bench.cluster import Cluster, open_store, wait_until
from cli.standalone.servers import Servers
from cli.standalone.state import DataDir
from shared.db.session import make_engine
from tests.chaos.evidence import fetch_file, read_history
from tests.chaos.history import check
from tests.fixtures.pictures import picture
from tests.fixtures.receiver import run_receiver, status

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LATENTQ = Path(sys.executable).with_name("latentq")
PROCESSES = ("api", "dispatcher", "worker-1")
PATIENCE_S = 240
#: Takes twenty seconds on the simulated device: longer than a backup.
LONG = 700
JsonObject = dict[str, Any]


@contextmanager
def servers_in(folder: Path) -> Iterator[Servers]:
    with DataDir(folder) as data_dir, Servers(data_dir) as servers:
        yield servers


@contextmanager
def running(servers: Servers, folder: Path) -> Iterator[Cluster]:
    variables = {
        "LATENTQ_WORKER_SLOTS": "2",
        "LATENTQ_WEBHOOK_ALLOW_LOOPBACK": "true",
    }
    with Cluster(servers, folder / "logs", variables=variables, step_s=0.03) as cluster:
        for name in PROCESSES:
            cluster.start(name)
        for name in PROCESSES:
            cluster.wait_until_ready(name)
        yield cluster


def latentq(*arguments: str, of: Servers) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [LATENTQ, *arguments],
        env={"PATH": os.environ["PATH"], **of.environment()},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def latentq_json(*arguments: str, of: Servers) -> JsonObject:
    ended = latentq(*arguments, "--json", of=of)
    assert ended.returncode == 0, ended.stderr
    document: JsonObject = json.loads(ended.stdout)
    return document


class Caller:
    """Somebody with a key, whichever servers it is known to."""

    def __init__(self, base_url: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self.http = httpx.Client(base_url=base_url, headers=headers, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def submit(self, **body: Any) -> str:
        answer = self.http.post("/v1/jobs", json={"prompt": "a red star", "steps": 2} | body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def get(self, job_id: str) -> JsonObject:
        job: JsonObject = self.http.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        return job

    def wait(self, job_id: str, *statuses: str) -> JsonObject:
        return wait_until(partial(self._reached, job_id, statuses), timeout_s=PATIENCE_S)

    def _reached(self, job_id: str, statuses: tuple[str, ...]) -> JsonObject:
        job = self.get(job_id)
        return job if job["status"] in statuses else {}


def digests(job: Mapping[str, Any]) -> list[str]:
    """Fetch what a job made by its links."""
    files = [httpx.get(one["url"]).raise_for_status().content for one in job["artifacts"]]
    return [hashlib.sha256(file).hexdigest() for file in files]


def count(database: sa.Engine, query: str) -> int:
    with database.connect() as connection:
        number: int = connection.execute(sa.text(f"SELECT count(*) FROM {query}")).scalar_one()
        return number


def test_a_restore_brings_back_every_job(server_folder: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    with run_receiver() as receiver:
        hook = {"url": receiver.url}
        receiver.default = status(500)
        with (
            servers_in(server_folder / "before") as servers,
            running(servers, server_folder / "before") as cluster,
            Caller(cluster.base_url, cluster.api_key) as caller,
        ):
            key = cluster.api_key
            done = [caller.submit(webhook=hook, num_outputs=2) for _ in range(3)]
            failed = caller.submit(webhook=hook, steps=LONG, deadline_s=1)
            for job_id in (*done, failed):
                caller.wait(job_id, "succeeded", "failed")
            caller.http.post("/v1/uploads", files={"file": picture()}).raise_for_status()
            unfinished = [caller.submit(webhook=hook, steps=LONG) for _ in range(3)]
            canceled = caller.submit(steps=LONG)
            caller.http.post(f"/v1/jobs/{canceled}/cancel").raise_for_status()
            wait_until(
                lambda: caller.get(unfinished[0])["progress"]["iteration"], timeout_s=PATIENCE_S
            )
            made = [*done, failed, *unfinished, canceled]
            before = {job_id: caller.get(job_id) for job_id in made}
            states = {job["status"] for job in before.values()}
            assert states == {"queued", "running", "succeeded", "failed", "canceled"}
            told = len(receiver.received)
            assert told

            summary = latentq_json("backup", str(backup), of=servers)
            assert summary["objects"] >= 7
            assert backup.stat().st_mode & 0o077 == 0
            assert latentq("backup", str(backup), of=servers).returncode == 2
        shutil.rmtree(server_folder / "before")
        receiver.default = status(204)

        with servers_in(server_folder / "after") as fresh:
            restored = latentq_json("restore", str(backup), of=fresh)
            assert restored["missing"] == []
            again = latentq("restore", str(backup), of=fresh)
            assert (again.returncode, "empty" in again.stderr) == (2, True)
            with (
                running(fresh, server_folder / "after") as cluster,
                Caller(cluster.base_url, key) as caller,
            ):
                for job_id, job in before.items():
                    now = caller.get(job_id)
                    assert now["request"] == job["request"]
                    assert job["finished_at"] is None or now["status"] == job["status"]
                for job_id in done:
                    expected = [one["sha256"] for one in before[job_id]["artifacts"]]
                    assert digests(caller.get(job_id)) == expected

                # It takes nothing new until somebody has looked.
                refused = caller.http.post("/v1/jobs", json={"prompt": "p"})
                assert (refused.status_code, refused.json()["code"]) == (503, "read_only")
                for job_id in unfinished:
                    assert caller.wait(job_id, "succeeded", "failed")["status"] == "succeeded"
                latentq_json("read-only", "off", of=fresh)
                wait_until(lambda: takes_jobs(caller), timeout_s=10)

                database = make_engine(fresh.database_url)
                hurry = "UPDATE deliveries SET next_attempt_at = now() WHERE status = 'pending'"
                with database.begin() as connection:
                    connection.execute(sa.text(hurry))
                pending = partial(count, database, "deliveries WHERE status = 'pending'")
                wait_until(lambda: pending() == 0, timeout_s=PATIENCE_S)
                fetch = partial(fetch_file, open_store(fresh))
                history = read_history(database, fetch, made, (), receiver.received)
                database.dispose()
    assert len(receiver.received) > told
    assert check(history) == []


def takes_jobs(caller: Caller) -> bool:
    return caller.http.post("/v1/jobs", json={"prompt": "p"}).status_code == 202


def test_what_did_not_come_to_its_end_is_no_backup(servers: Servers, tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    (tmp_path / "database.dump").touch()
    ended = latentq("restore", str(tmp_path), of=servers)
    assert (ended.returncode, "backup.json" in ended.stderr) == (2, True)


def test_a_database_that_is_not_there_leaves_no_backup(servers: Servers, tmp_path: Path) -> None:
    url = servers.database_url.rpartition("/")[0] + "/nothing"
    ended = subprocess.run(
        [LATENTQ, "backup", str(tmp_path / "backup")],
        env={"PATH": os.environ["PATH"], **servers.environment(), "LATENTQ_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 2
    assert "pg_dump" in ended.stderr
    assert servers.database_url.split(":")[2].split("@")[0] not in ended.stderr
    assert not (tmp_path / "backup" / "backup.json").exists()
