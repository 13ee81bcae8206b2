"""`python -m bench.scale`: what do more workers gain, and where does that end?

Real processes and servers, all on this machine; only the devices are simulated. They take their
time as a large model does and leave the processor to everything else.
"""

import math
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cluster import Cluster
from bench.feeder import MEAN_STEPS, STEPS, Feeder
from bench.fleet import SLOTS, Fleet
from bench.gate import Gate, tabulate
from bench.growth import (
    DEVICE,
    FULL,
    KEPT_UP,
    LOAD,
    NEAR,
    QUICK,
    SLOWNESS,
    Failures,
    Growth,
    Level,
    Network,
    Plan,
    Saturation,
)
from bench.percentile import percentile
from bench.usage import CLIENTS, Usage
from cli.standalone.servers import Servers
from cli.standalone.state import DataDir
from evals.report import JsonFile, PageFile, Report, Table

QUESTION = (
    "What do more workers gain, and where does that end? Clients, API, dispatcher, workers and "
    "stores are real and share this machine. Devices are simulated: they sleep as long as "
    f"a forward of the demo model takes, {SLOWNESS} times as slow "
    f"({1000 * DEVICE.predict_s(1):.0f} ms for one row, {1000 * DEVICE.predict_s(SLOTS):.0f} ms "
    f"for {SLOTS}), as large models are, so that up to 8 workers the system is measured and not "
    "the processor. Encoding and decoding take no time, and pictures are small. Jobs have one row "
    f"and {', '.join(map(str, STEPS[:-1]))} or {STEPS[-1]} steps; a worker has {SLOTS} slots. "
    "Linear is so many times what one worker does; beside it stands what the devices would allow, "
    "and the memory that is a worker's own."
)
#: What up to so many workers must reach of linear.
LINEAR, MAX_GATED = 0.95, 8
PROCESSES = ("api", "dispatcher", "worker", "PostgreSQL", "Valkey", "SeaweedFS", CLIENTS)
#: Those whose shares of the processor are shown together.
ROLES = {
    "services": ("api", "dispatcher"),
    "stores": ("PostgreSQL", "Valkey", "SeaweedFS"),
    "workers": ("worker",),
    CLIENTS: (CLIENTS,),
}
#: What a host for everything but workers and clients would run.
CENTRAL = ("api", "dispatcher", "PostgreSQL", "Valkey", "SeaweedFS")
#: Commands of Redis that are shown one by one; the others are summed up.
NUM_COMMANDS = 6


@dataclass(frozen=True, slots=True)
class Findings:
    """All that is measured."""

    rest: Usage
    levels: Sequence[Level]
    #: By how many times as fast devices were.
    ceiling: Mapping[int, Saturation]
    far: Mapping[Network, Saturation]
    failures: Failures

    @property
    def saturations(self) -> list[Saturation]:
        """What was done by how many workers, the fewest first."""
        return [level.saturation for level in self.levels]

    @property
    def most(self) -> Saturation:
        """The most jobs a second that this machine has carried."""
        return max([*self.saturations, *self.ceiling.values()], key=lambda one: one.jobs_per_s)

    @property
    def is_ceiling(self) -> bool:
        """Whether something else than devices was too slow in the end."""
        return any(one.share < KEPT_UP for one in [*self.saturations, *self.ceiling.values()])


def main(
    json_file: JsonFile = None,
    page_file: PageFile = None,
    quick: Annotated[bool, typer.Option("--quick", help="Two workers, no verdict.")] = False,
) -> None:
    """Print what more workers gain, what a job takes of everything, and where the ceiling is."""
    with (
        tempfile.TemporaryDirectory(prefix="latentq-bench-") as folder,
        DataDir(Path(folder) / "data") as data_dir,
        Servers(data_dir) as servers,
        Cluster(servers, data_dir.logs, variables={}, step_s=0.0) as cluster,
    ):
        found = measure(cluster, data_dir.logs, QUICK if quick else FULL)
    gates = judge(found.saturations, found.failures)
    tables = [
        _throughput_table(found),
        _waits_table(found.levels),
        _calls_table(found.saturations),
        _cpu_table(found.saturations),
        _rest_table(found.rest),
        _ceiling_table(found),
        _core_table(found.saturations),
        _far_table(found.far),
        tabulate(gates),
    ]
    Report("What more workers gain", QUESTION, tables, _describe(found, gates)).publish(
        "python -m bench.scale", json_file=json_file, page_file=page_file, quick=quick
    )
    print(_sum_up(found, gates))  # noqa: T201
    sys.exit(1 if not quick and not all(gate.passes for gate in gates) else 0)


def measure(cluster: Cluster, folder: Path, plan: Plan) -> Findings:
    """Measure everything on a cluster in which nothing runs yet."""
    fleet = Fleet(cluster, folder)
    fleet.start_services()
    with Feeder(cluster) as feeder:
        growth = Growth(cluster, fleet, feeder, plan)
        rest = growth.rest()
        levels = [growth.measure(num_workers) for num_workers in plan.workers]
        ceiling = growth.find_ceiling()
        far = growth.move_away()
        failures = growth.count_failures()
        growth.close()
    return Findings(rest, levels, ceiling, far, failures)


def linear_shares(saturation: Saturation, one: Saturation) -> list[float]:
    """Compare workers with so many times one, window by window."""
    factor = saturation.workers / one.workers
    pairs = zip(saturation.rates, one.rates, strict=True)
    return [rate / (factor * of_one) for rate, of_one in pairs]


def judge(saturations: Sequence[Saturation], failures: Failures) -> list[Gate]:
    """Compare with linear what is to be nearly that; nothing may have gone wrong."""
    one, *more = saturations
    return [
        *(
            Gate(
                f"{saturation.workers} workers / linear",
                statistics.median(linear_shares(saturation, one)),
                at_least=LINEAR if saturation.workers <= MAX_GATED else None,
            )
            for saturation in more
        ),
        Gate("failed jobs", failures.failed_jobs, at_most=0),
        Gate("lost leases", failures.lost_leases, at_most=0),
    ]


def _sum_up(found: Findings, gates: Sequence[Gate]) -> str:
    missed = [gate.name for gate in gates if not gate.passes]
    shares = ", ".join(f"{gate.name} {gate.value:.2f}" for gate in gates if gate.at_most is None)
    ceiling = f"{found.most.jobs_per_s:.1f} jobs a second{'' if found.is_ceiling else ' and more'}"
    verdict = f"missed: {', '.join(missed)}" if missed else "all targets are reached"
    return f"{shares}; this machine carries {ceiling}: {verdict}"


def _throughput_table(found: Findings) -> Table:
    rows = []
    for level in found.levels:
        one = level.saturation
        shares = linear_shares(one, found.saturations[0])
        span = f"{statistics.median(shares):.3f} ({min(shares):.2f} to {max(shares):.2f})"
        rows.append(
            [
                str(one.workers),
                f"{one.jobs_per_s:.2f}",
                span,
                f"{one.share:.3f}",
                f"{one.rows_per_forward:.2f}",
                f"{level.worker_bytes / 1e6:.0f}",
            ]
        )
    columns = ["workers", "jobs per s", "/ linear", "/ devices", "rows of a forward", "MB each"]
    return Table("Throughput with always enough to do", columns, rows)


def _waits_table(levels: Sequence[Level]) -> Table:
    rows = [
        [
            str(level.saturation.workers),
            str(len(level.waits_s)),
            *(f"{1000 * percentile(level.waits_s, share):.0f}" for share in (0.5, 0.95)),
        ]
        for level in levels
    ]
    title = f"From acceptance to a worker, ms, at {LOAD:g} of what the devices allow"
    return Table(title, ["workers", "jobs", "p50", "p95"], rows)


def _calls_table(saturations: Sequence[Saturation]) -> Table:
    rows = [
        [f"SQL statements, {user}", *_per_job(saturations, "sql", user)]
        for user in ("api", "dispatcher", "worker")
    ]
    last = saturations[-1].usage
    commands = last.of("redis")
    often = sorted(commands, key=lambda name: -commands[name])[:NUM_COMMANDS]
    rows += [[f"Redis, {name}", *_per_job(saturations, "redis", name)] for name in often]
    rows.append(["Redis, all commands", *_per_job(saturations, "redis")])
    rows += [[f"S3, {name}", *_per_job(saturations, "s3", name)] for name in sorted(last.of("s3"))]
    title = "Calls for a job, by workers (BEGIN and COMMIT are not counted)"
    return Table(title, ["", *(str(one.workers) for one in saturations)], rows)


def _cpu_table(saturations: Sequence[Saturation]) -> Table:
    rows = [[name, *_per_job(saturations, "cpu", name, unit=1000)] for name in PROCESSES]
    rows.append(["all", *_per_job(saturations, "cpu", unit=1000)])
    rows.append(["cores busy", *(f"{one.cores:.2f}" for one in saturations)])
    title = "Processor time for a job, ms, by workers"
    return Table(title, ["", *(str(one.workers) for one in saturations)], rows)


def _rest_table(rest: Usage) -> Table:
    sql, cpu = rest.of("sql"), rest.of("cpu")
    rows = [
        [
            name,
            f"{sql[name] / rest.seconds:.1f}" if name in sql else "",
            f"{1000 * cpu[name] / rest.seconds:.1f}",
        ]
        for name in PROCESSES
        if name != CLIENTS
    ]
    title = (
        "One of each with nothing to do, per second; Redis gets "
        f"{rest.total('redis') / rest.seconds:.1f} commands"
    )
    return Table(title, ["", "SQL statements", "processor ms"], rows)


def _ceiling_table(found: Findings) -> Table:
    rows = []
    for speed, one in {1: found.saturations[-1], **found.ceiling}.items():
        cpu, total = one.usage.of("cpu"), one.usage.total("cpu")
        shares = [
            f"{100 * sum(cpu[name] for name in names) / total:.0f}" for names in ROLES.values()
        ]
        rows.append(
            [
                f"{one.workers} x {speed}",
                f"{one.jobs_per_s:.1f}",
                f"{one.share:.2f}",
                f"{one.cores:.2f}",
                *shares,
            ]
        )
    of_one, most = found.saturations[0].jobs_per_s, found.most.jobs_per_s
    reached = "at" if found.is_ceiling else "above"
    title = (
        f"The ceiling of this machine, {reached} {most:.1f} jobs per second, those of "
        f"{most / of_one:.0f} workers: devices that are so many times as fast"
    )
    columns = ["workers x speed", "jobs per s", "/ devices", "cores", *(f"{n} %" for n in ROLES)]
    return Table(title, columns, rows)


def _core_table(saturations: Sequence[Saturation]) -> Table:
    one, most = saturations[0], saturations[-1]
    added = most.jobs_per_s - one.jobs_per_s
    added_s = {name: (most.busy_cores(name) - one.busy_cores(name)) / added for name in CENTRAL}
    rows = []
    for name, seconds in [*added_s.items(), ("all of them", sum(added_s.values()))]:
        # A difference of two measurements; next to nothing may come out as less.
        carried = 1 / seconds if seconds > 0 else math.inf
        rows.append(
            [
                name,
                f"{1000 * seconds:.2f}",
                f"{carried:.0f}",
                f"{carried / one.jobs_per_s:.0f}",
            ]
        )
    title = (
        f"What a whole core of each would carry, by what it took more for {most.workers} workers "
        f"than for {one.workers}"
    )
    return Table(title, ["", "ms for a job", "jobs per s", "workers"], rows)


def _far_table(far: Mapping[Network, Saturation]) -> Table:
    near = far[NEAR]
    rows = [
        [
            network.name,
            f"{one.jobs_per_s:.2f}",
            f"{statistics.median(one.rates) / statistics.median(near.rates):.3f}",
            f"{one.rows_per_forward:.2f}",
        ]
        for network, one in far.items()
    ]
    title = f"{near.workers} workers and the stores, through a proxy"
    return Table(title, ["the stores are", "jobs per s", "/ here", "rows"], rows)


def _per_job(
    saturations: Sequence[Saturation], resource: str, user: str | None = None, *, unit: float = 1
) -> list[str]:
    """Show what a job took of a resource, in each column."""
    return [f"{unit * one.per_job(resource, user):.2f}" for one in saturations]


def _describe(found: Findings, gates: Sequence[Gate]) -> dict[str, Any]:
    return {
        "device_s": dict(DEVICE.seconds),
        "mean_steps": MEAN_STEPS,
        "rest": _describe_usage(found.rest),
        "levels": [
            _describe_saturation(level.saturation)
            | {"waits_s": list(level.waits_s), "worker_bytes": level.worker_bytes}
            for level in found.levels
        ],
        "ceiling": {speed: _describe_saturation(one) for speed, one in found.ceiling.items()},
        "far": {network.name: _describe_saturation(one) for network, one in found.far.items()},
        "failures": asdict(found.failures),
        "gates": [asdict(gate) | {"passes": gate.passes} for gate in gates],
    }


def _describe_saturation(one: Saturation) -> dict[str, Any]:
    return {
        "workers": one.workers,
        "rows_per_s": list(one.rates),
        "allowed": one.allowed,
        "jobs_per_s": one.jobs_per_s,
        "rows_per_forward": one.rows_per_forward,
        "usage": _describe_usage(one.usage),
    }


def _describe_usage(usage: Usage) -> dict[str, Any]:
    counts = {f"{count.resource} {count.user}": value for count, value in usage.counts.items()}
    return {"seconds": usage.seconds, "counts": counts}


if __name__ == "__main__":
    typer.run(main)
