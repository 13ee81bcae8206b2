"""How waiting jobs are served: one at a time, in groups of equals, or by the engine."""

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

from bench.arrivals import VirtualClock
from bench.mix import rows_of
from shared.request import GenerationRequest
from worker.engine import Engine


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job and the moment at which it comes, in seconds."""

    at: float
    request: GenerationRequest


#: Chooses from the waiting jobs, in order of arrival, the places of those that are served next.
Pick = Callable[[Sequence[GenerationRequest]], Sequence[int]]


def pick_first(_waiting: Sequence[GenerationRequest]) -> list[int]:
    """Serve one at a time, first come, first served."""
    return [0]


def pick_equals(waiting: Sequence[GenerationRequest], *, max_rows: int) -> list[int]:
    """Serve the first, and with it those of equal parameters, as far as the rows allow."""
    alike = [n for n, job in enumerate(waiting) if _group_of(job) == _group_of(waiting[0])]
    return alike[: max(max_rows // rows_of(waiting[0]), 1)]


def serve_groups(
    arrivals: Sequence[Arrival],
    pick: Pick,
    run: Callable[[Sequence[GenerationRequest]], None],
    clock: VirtualClock,
) -> list[float]:
    """Serve a group after the other, never waiting for more; returns each job's latency in s."""
    coming = list(range(len(arrivals)))
    waiting: list[int] = []
    latencies = [0.0] * len(arrivals)
    while coming or waiting:
        if not waiting:
            clock.skip_to(arrivals[coming[0]].at)
            waiting.append(coming.pop(0))
        while coming and arrivals[coming[0]].at <= clock.now():
            waiting.append(coming.pop(0))
        chosen = [waiting[n] for n in pick([arrivals[n].request for n in waiting])]
        run([arrivals[n].request for n in chosen])
        for n in chosen:
            waiting.remove(n)
            latencies[n] = clock.now() - arrivals[n].at
    return latencies


def serve_engine(arrivals: Sequence[Arrival], engine: Engine, clock: VirtualClock) -> list[float]:
    """Give an engine that runs its jobs as they come; returns each job's latency in s."""
    latencies = [0.0] * len(arrivals)
    ended = threading.Semaphore(0)
    futures = []
    num_ended = 0

    def note(number: int, _future: object) -> None:
        latencies[number] = clock.now() - arrivals[number].at
        ended.release()

    for number, arrival in enumerate(arrivals):
        while (left_s := arrival.at - clock.now()) > 0:
            if num_ended == number:
                clock.skip_to(arrival.at)
            elif ended.acquire(timeout=left_s):  # one core uses no more CPU time than passes
                num_ended += 1
        future = engine.submit(f"arrival-{number}", arrival.request)
        future.add_done_callback(partial(note, number))
        futures.append(future)
    for future in futures:
        future.result()
    for _ in range(len(arrivals) - num_ended):
        ended.acquire()
    return latencies


def _group_of(request: GenerationRequest) -> Hashable:
    return (request.sampler, request.schedule, request.steps, request.guidance)
