"""The cluster with a proxy on every connection, and the record of what it accepted."""

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import sqlalchemy as sa

from bench.cluster import TENANT, Cluster, Program, open_store, wait_until, warm_up
from bench.links import Links
from bench.proxy import ProxyLoop
from cli.standalone.child import Child
from cli.standalone.servers import Servers
from cli.standalone.state import DataDir
from latentq_client import Client
from shared.db.jobs import JobRepository
from shared.db.session import make_engine
from shared.job import Job, JobStatus, NewJob, PresetRef
from shared.queue import JobQueue
from shared.request import GenerationRequest
from shared.webhook import Webhook
from tests.chaos.evidence import fetch_file, read_history, sample_queue
from tests.chaos.history import History, QueueSample, check
from tests.fixtures.receiver import Receiver, run_receiver
from tests.fixtures.stack import WARM_DEFAULT_ONLY

#: Short, so that scenarios are.
LEASE_S = 3.0
REDISPATCH_S = 1.0
#: A forward of the simulated device, and a round of the dispatcher.
STEP_S = 0.03
TICK_S = 0.2
QUEUE = "demo.interactive"
#: What runs unless a scenario says otherwise.
PROCESSES = ("api", "dispatcher", "worker-1", "worker-2")
WORKERS = ("worker-1", "worker-2")
#: What a process may take to do what it could do at once, on a machine with other work, in seconds.
SLACK_S = 2.0
#: What a delivery takes that nothing goes wrong with, in seconds.
DELIVERY_S = 3.0
#: No scenario waits longer for something that has no bound of its own, in seconds.
PATIENCE_S = 60.0
#: Steps of a job that takes a few seconds.
LONG = 100


class System:
    """What scenarios break, and look at."""

    def __init__(
        self, data_dir: DataDir, servers: Servers, loop: ProxyLoop, receiver: Receiver
    ) -> None:
        self.servers = servers
        #: Hears of the jobs that name it, and answers as told.
        self.receiver = receiver
        self.links: dict[str, Links] = {}
        self._data_dir = data_dir
        self._loop = loop
        self.cluster = Cluster(
            servers,
            data_dir.logs,
            variables={
                "LATENTQ_LEASE_S": f"{LEASE_S:g}",
                "LATENTQ_REDISPATCH_S": f"{REDISPATCH_S:g}",
                **WARM_DEFAULT_ONLY,
                "LATENTQ_WEBHOOK_ALLOW_LOOPBACK": "true",
            },
            routes=self._route,
            step_s=STEP_S,
        )
        # Its own connections go past all proxies.
        self.database = make_engine(servers.database_url)
        self.jobs = JobRepository(self.database)
        self.queue = JobQueue(servers.redis_url)
        self.store = open_store(servers)
        self.accepted: list[str] = []
        self.samples: list[QueueSample] = []
        self._seeds = iter(range(1, 1_000_000))
        self._frozen: list[Child] = []
        #: Processes that run something else than usual.
        self._special: set[str] = set()

    def start(self, name: str, *, program: Program | None = None, **variables: str) -> None:
        """Start a process, for this scenario in another way than usual."""
        self.cluster.start(name, program=program, **variables)
        if program is not None or variables or name not in PROCESSES:
            self._special.add(name)

    def begin(self) -> None:
        """Make everything whole, and forget what was accepted before."""
        self.heal()
        self.accepted, self.samples = [], []

    def heal(self) -> None:
        """Mend all that can break."""
        for name in self.cluster.running():
            self.cluster.thaw(name)
        while self._frozen:
            self.thaw_server(self._frozen[-1])
        for child in self.servers.children:
            if not child.is_alive:
                self.start_server(child)
        for proxy in (proxy for links in self.links.values() for proxy in links):
            proxy.heal()
        for name in self._special & set(self.cluster.running()):
            self.cluster.kill(name)
        self._special.clear()
        self.revive()

    def revive(self) -> None:
        """Start the usual processes that do not run, as a supervisor does."""
        missing = [name for name in PROCESSES if not self.cluster.is_running(name)]
        for name in missing:
            self.cluster.start(name)
        for name in missing:
            self.cluster.wait_until_ready(name)

    def finish(self) -> None:
        """Wait until all that was accepted has ended and was told, and judge it."""
        self.wait(self.accepted)
        self.wait_until_told()
        violations = check(self.history())
        assert not violations, "\n".join(map(str, violations))

    def abandon(self) -> None:
        """Judge nothing of what was accepted: the scenario broke it on purpose."""
        for job_id in self.accepted:
            self.jobs.request_cancel(TENANT, job_id)
        self.accepted = []

    def history(self) -> History:
        """Read what became of the jobs accepted in this scenario."""
        fetch = partial(fetch_file, self.store)
        return read_history(
            self.database, fetch, self.accepted, self.samples, self.receiver.received
        )

    def wait_until_told(self, *, timeout_s: float = PATIENCE_S) -> None:
        """Wait until no delivery is under way; what waits for its next try has it soon."""
        with contextlib.suppress(TimeoutError):
            wait_until(self._is_told, timeout_s=DELIVERY_S)
        self.hurry_deliveries()
        wait_until(self._is_told, timeout_s=timeout_s)

    def hurry_deliveries(self) -> None:
        """Let the next try of each delivery come now: the lease of a dead process, too, ends."""
        statement = "UPDATE deliveries SET next_attempt_at = now() WHERE status = 'pending'"
        with self.database.begin() as connection:
            connection.execute(sa.text(statement))

    def _is_told(self) -> bool:
        query = "SELECT count(*) FROM deliveries WHERE status = 'pending'"
        with self.database.connect() as connection:
            return connection.execute(sa.text(query)).scalar_one() == 0

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client of the API."""
        with Client(self.cluster.base_url, self.cluster.api_key) as client:
            yield client

    def post(self, *, timeout_s: float = 10.0, key: str | None = None, **body: Any) -> Any:
        """Send one request for a job and return the answer; an accepted job is remembered."""
        headers = {"Authorization": f"Bearer {self.cluster.api_key}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        answer = httpx.post(
            f"{self.cluster.base_url}/v1/jobs",
            json=self._fill(body),
            headers=headers,
            timeout=timeout_s,
        )
        if answer.status_code == 202:
            self.accepted.append(answer.json()["id"])
        return answer

    def submit(self, **body: Any) -> str:
        """Submit a job that must be accepted, and return its id."""
        answer = self.post(**body)
        assert answer.status_code == 202, answer.text
        return self.accepted[-1]

    def insert(self, *, tenant: str = TENANT, webhook: Webhook | None = None, **fields: Any) -> str:
        """Store a job past the API, which would announce it; it counts as accepted."""
        size = {"model": "demo", "schedule": "native", "width": 64, "height": 64}
        new = NewJob(
            id=f"job_{uuid4().hex}",
            tenant=tenant,
            queue=QUEUE,
            request=GenerationRequest.model_validate(self._fill(size | fields)),
            preset=PresetRef("balanced", 1),
            metadata={},
            webhook=webhook,
        )
        self.jobs.insert(new)
        self.accepted.append(new.id)
        return new.id

    def get(self, job_id: str) -> Job:
        """Read a job, past the API."""
        query = sa.text("SELECT tenant FROM jobs WHERE id = :id")
        with self.database.connect() as connection:
            tenant = connection.execute(query, {"id": job_id}).scalar_one()
        return self.jobs.get(tenant, job_id)

    def status(self, job_id: str) -> JobStatus:
        """Read a job's status, past the API."""
        return self.get(job_id).status

    def wait(self, job_ids: Sequence[str], *, timeout_s: float = PATIENCE_S) -> list[Job]:
        """Wait until jobs have ended."""
        return [self.wait_for(job_id, lambda job: job.status.is_terminal, timeout_s=timeout_s)
                for job_id in job_ids]  # fmt: skip

    def wait_for(
        self, job_id: str, condition: Callable[[Job], bool], *, timeout_s: float = PATIENCE_S
    ) -> Job:
        """Wait until a job is as it should be."""

        def look() -> Job | None:
            job = self.get(job_id)
            return job if condition(job) else None

        try:
            job = wait_until(look, timeout_s=timeout_s)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self.get(job_id)}") from error
        assert job is not None
        return job

    def wait_for_progress(self, job_id: str) -> str:
        """Wait until a job is in the middle of its run; returns the worker that runs it."""
        self.wait_for(job_id, lambda job: job.iteration > 0)
        return self.worker_of(job_id)

    def worker_of(self, job_id: str) -> str:
        """Name the worker that has, or had, a job's last attempt."""
        query = "SELECT worker FROM attempts WHERE job_id = :id ORDER BY attempt DESC LIMIT 1"
        with self.database.connect() as connection:
            name: str = connection.execute(sa.text(query), {"id": job_id}).scalar_one()
        return name

    def sample(self) -> QueueSample:
        """Look at the queue, and remember what was seen."""
        self.samples.append(sample_queue(self.database, self.queue, QUEUE))
        return self.samples[-1]

    def start_server(self, child: Child) -> None:
        """Start a server that was killed, and wait until it serves."""
        child.start()
        child.wait_until_ready(threading.Event())

    def kill_server(self, child: Child) -> None:
        """End a server with -9."""
        child.kill()
        assert child.wait(timeout_s=PATIENCE_S)

    def forget_redis(self) -> None:
        """Throw away what a killed Valkey kept on disk."""
        shutil.rmtree(self._data_dir.path / "valkey" / "appendonlydir")

    def freeze_server(self, child: Child) -> None:
        """Stop a server where it stands."""
        _signal(child, signal.SIGSTOP)
        self._frozen.append(child)

    def thaw_server(self, child: Child) -> None:
        """Let a frozen server go on."""
        self._frozen.remove(child)
        _signal(child, signal.SIGCONT)

    def _fill(self, body: dict[str, Any]) -> dict[str, Any]:
        """Complete a request so that its job shares forwards, and is told from all others."""
        usual = {"prompt": "a red star", "sampler": "ddim", "guidance": 1, "steps": 4}
        return usual | {"seed": next(self._seeds)} | body

    def _route(self, name: str) -> dict[str, str]:
        if name not in self.links:
            self.links[name] = Links.to(self.servers, self._loop)
        return self.links[name].environment(self.servers)

    def close(self) -> None:
        """Close what is the system's own."""
        self.database.dispose()
        for links in self.links.values():
            links.close()


@contextmanager
def running_system(folder: Path) -> Iterator[System]:
    """Start servers and processes, and stop them in the end."""
    warm_up()  # takes the longest, and needs nobody
    with (
        run_receiver() as receiver,
        DataDir(folder) as data_dir,
        ProxyLoop() as loop,
        Servers(data_dir) as servers,
    ):
        system = System(data_dir, servers, loop, receiver)
        with system.cluster:
            yield system
        system.close()


def _signal(child: Child, number: signal.Signals) -> None:
    if child.pid is not None:
        os.killpg(child.pid, number)
