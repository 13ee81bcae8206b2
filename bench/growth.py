"""What a growing number of workers gets done, how long jobs wait, and what that takes."""

import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from bench.cluster import Cluster
from bench.curve import BatchCurve
from bench.feeder import MEAN_STEPS, Feeder
from bench.fleet import SLOTS, Fleet
from bench.forward_log import count_rows
from bench.links import Links
from bench.proxy import ProxyLoop
from bench.simulated_device import NUM_CHANNELS, PROMPT_SHAPE
from bench.usage import Meter, Usage
from models import CATALOG
from shared.catalog import Catalog
from shared.db.costs import CostRepository
from shared.db.session import make_engine
from shared.estimate import CostCell, Stage, Workload
from worker.device import describe_device

#: So many times as slow as the demo model on a core: a forward takes what it takes a large model.
SLOWNESS = 20
#: The demo model's forwards, as `bench.engine` has measured them, so much slower.
DEVICE = BatchCurve(
    {
        rows: SLOWNESS * ms / 1000
        for rows, ms in {1: 11.9, 2: 14.2, 4: 20.9, 8: 34.7, 12: 52.2, 16: 73.8}.items()
    }
)
#: What all jobs are of.
MODEL = "demo"
#: As if the device had been seen so often.
NUM_SAMPLES = 100
#: Jobs that wait or run for each slot while there is always more to do: what is announced at most.
BACKLOG_PER_SLOT = 2
#: Of what the devices allow, at which waiting is measured.
LOAD = 0.8
#: A machine that does less than this share of what the devices allow is what holds them up.
KEPT_UP = 0.95
_NOW = sa.text("SELECT clock_timestamp()")
_FAILURES = sa.text("""
SELECT count(*) FILTER (WHERE status = 'failed') AS failed, sum(lost_leases) AS lost FROM jobs
""")
_WAITS = sa.text("""
SELECT extract(epoch FROM attempts.started_at - jobs.created_at)
  FROM jobs JOIN attempts ON attempts.job_id = jobs.id AND attempts.attempt = 1
 WHERE jobs.created_at BETWEEN :start AND :end
""")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    workers: Sequence[int]
    #: Windows of a measurement, and their length in seconds.
    num_windows: int
    window_s: float
    #: How long jobs mix before the first, and after the network has changed, in seconds.
    settle_s: float
    resettle_s: float
    #: How long jobs arrive by themselves, and how long nothing happens, in seconds.
    arrivals_s: float
    rest_s: float
    #: How many times as fast devices get to find the ceiling, as long as the machine keeps up.
    speeds: Sequence[int]
    #: How many workers are moved away.
    far_workers: int


FULL = Plan((1, 2, 4, 8, 16), 5, 9.0, 15.0, 6.0, 45.0, 10.0, (2, 4, 8, 16), 8)
QUICK = Plan((1, 2), 2, 3.0, 4.0, 1.0, 6.0, 3.0, (16,), 2)


@dataclass(frozen=True, slots=True)
class Saturation:
    """What workers did while they had always more to do."""

    workers: int
    #: Rows that went through all denoisers, per second, in each window.
    rates: Sequence[float]
    #: What the devices would allow, with all slots taken.
    allowed: float
    rows_per_forward: float
    usage: Usage

    @property
    def jobs_per_s(self) -> float:
        """Jobs for which these rows are enough."""
        return statistics.median(self.rates) / MEAN_STEPS

    def per_job(self, resource: str, user: str | None = None) -> float:
        """Return what a job took of a resource, by one of its users or by all."""
        usage = self.usage
        used = usage.total(resource) if user is None else usage.of(resource).get(user, 0.0)
        return used / usage.seconds / (statistics.fmean(self.rates) / MEAN_STEPS)

    @property
    def share(self) -> float:
        """Of what the devices would allow."""
        return statistics.median(self.rates) / self.allowed

    @property
    def cores(self) -> float:
        """Cores that were busy, with all that was running."""
        return self.usage.total("cpu") / self.usage.seconds

    def busy_cores(self, user: str) -> float:
        """Cores that were busy with one of their users."""
        return self.usage.of("cpu")[user] / self.usage.seconds


@dataclass(frozen=True, slots=True)
class Level:
    """What so many workers did, and how long jobs waited at `LOAD`, in seconds."""

    saturation: Saturation
    waits_s: Sequence[float]
    #: What one of them had in memory for itself alone.
    worker_bytes: float


@dataclass(frozen=True, slots=True)
class Failures:
    """What must not be."""

    failed_jobs: int
    lost_leases: int


@dataclass(frozen=True, slots=True)
class Network:
    """What lies between workers and stores."""

    name: str
    delay_s: float = 0.0
    lost_share: float = 0.0


NEAR = Network("here")
NETWORKS = (
    NEAR,
    Network("20 ms away, each way", 0.02),
    Network("20 ms away, 1% lost", 0.02, 0.01),
)


class Growth:
    """A fleet that grows, is made faster, and is moved away."""

    def __init__(self, cluster: Cluster, fleet: Fleet, feeder: Feeder, plan: Plan) -> None:
        self._cluster = cluster
        self._fleet = fleet
        self._feeder = feeder
        self._plan = plan
        self._meter = Meter(fleet)
        self._database = make_engine(cluster.servers.database_url)

    def close(self) -> None:
        """Close its connections."""
        self._meter.close()
        self._database.dispose()

    def rest(self) -> Usage:
        """Measure one worker that has nothing to do."""
        self._teach(DEVICE)
        self._fleet.grow(1, DEVICE)
        before = self._meter.read()
        time.sleep(self._plan.rest_s)
        return self._meter.read().since(before)

    def measure(self, num_workers: int) -> Level:
        """Measure so many workers: first jobs that arrive by themselves, then as many as can be."""
        self._fleet.grow(num_workers, DEVICE)
        rate = LOAD * num_workers * _allowed(DEVICE) / MEAN_STEPS
        self._feeder.arrive(rate, self._plan.settle_s)
        start = self._now()
        self._feeder.arrive(rate, self._plan.arrivals_s)
        end = self._now()
        saturation = self.saturate(DEVICE)
        # By now all of them have begun.
        return Level(saturation, self._read_waits(start, end), self._meter.worker_bytes())

    def find_ceiling(self) -> dict[int, Saturation]:
        """Make devices faster until something else is too slow; returns what was done, by speed."""
        found = {}
        num_workers = max(self._plan.workers)
        for speed in self._plan.speeds:
            device = DEVICE.faster(speed)
            self._fleet.dismiss()
            self._teach(device)
            self._fleet.grow(num_workers, device)
            found[speed] = self.saturate(device)
            if found[speed].share < KEPT_UP:
                break
        return found

    def move_away(self) -> dict[Network, Saturation]:
        """Measure workers that reach the stores through ever worse networks."""
        found = {}
        servers = self._cluster.servers
        self._fleet.dismiss()
        self._teach(DEVICE)
        with ProxyLoop() as loop:
            links = Links.to(servers, loop)
            self._fleet.grow(self._plan.far_workers, DEVICE, links.environment(servers))
            for network in NETWORKS:
                for proxy in links:
                    proxy.delay(network.delay_s)
                    proxy.lose(network.lost_share)
                settle_s = self._plan.settle_s if network is NEAR else self._plan.resettle_s
                found[network] = self.saturate(DEVICE, settle_s=settle_s)
            for proxy in links:
                proxy.heal()
            self._fleet.dismiss()
            links.close()
        return found

    def saturate(self, device: BatchCurve, *, settle_s: float | None = None) -> Saturation:
        """Measure the workers that run while there is always more to do."""
        fleet, plan = self._fleet, self._plan
        num_workers = len(fleet.workers)
        with self._feeder.backlog(BACKLOG_PER_SLOT * SLOTS * num_workers):
            time.sleep(plan.settle_s if settle_s is None else settle_s)
            before = self._meter.read()
            moments = [time.monotonic()]
            for _ in range(plan.num_windows):
                time.sleep(plan.window_s)
                moments.append(time.monotonic())
            usage = self._meter.read().since(before)
        forwards = list(itertools.chain.from_iterable(fleet.read_forwards()))
        rates = [
            count_rows(forwards, start, end) / (end - start)
            for start, end in itertools.pairwise(moments)
        ]
        during = [one.rows for one in forwards if moments[0] <= one.began_at < moments[-1]]
        return Saturation(
            workers=num_workers,
            rates=rates,
            allowed=num_workers * _allowed(device),
            rows_per_forward=statistics.fmean(during),
            usage=usage,
        )

    def count_failures(self) -> Failures:
        """Count what went wrong so far."""
        with self._database.connect() as connection:
            row = connection.execute(_FAILURES).one()
        return Failures(row.failed, row.lost or 0)

    def _teach(self, device: BatchCurve) -> None:
        """Have workers find what such a device costs, as those find it that come to a fleet.

        The first worker of a model as slow as this one takes hundreds of forwards to learn it all.
        """
        costs, kind = CostRepository(self._database), describe_device("cpu")
        spec = Catalog.load(CATALOG).models[MODEL]
        sides = (spec.height // spec.latent_factor, spec.width // spec.latent_factor)
        workload = Workload(Stage.FORWARD, (1, NUM_CHANNELS, *sides), PROMPT_SHAPE[1])
        costs.forget(model=MODEL, device=kind)
        costs.save(
            CostCell(MODEL, kind, workload, rows, 1000 * seconds, NUM_SAMPLES)
            for rows, seconds in device.seconds.items()
        )

    def _now(self) -> datetime:
        with self._database.connect() as connection:
            moment: datetime = connection.execute(_NOW).scalar_one()
        return moment

    def _read_waits(self, start: datetime, end: datetime) -> list[float]:
        with self._database.connect() as connection:
            found = connection.scalars(_WAITS, {"start": start, "end": end})
            return [float(wait_s) for wait_s in found]


def _allowed(device: BatchCurve) -> float:
    """Return the rows per second of a device whose slots are all taken, by jobs of one row."""
    return SLOTS / device.predict_s(SLOTS)
