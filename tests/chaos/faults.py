"""What a campaign does to a system at random; `System.heal` undoes all of it."""

from collections.abc import Callable, Mapping
from random import Random

from bench.proxy import Proxy
from tests.chaos.system import STEP_S, WORKERS, System

Fault = Callable[[System, Random], None]


def kill_worker(system: System, random: Random) -> None:
    system.cluster.kill(random.choice(WORKERS))


def freeze_worker(system: System, random: Random) -> None:
    system.cluster.freeze(random.choice(WORKERS))


def drain_worker(system: System, random: Random) -> None:
    system.cluster.terminate(random.choice(WORKERS))


def kill_api(system: System, _: Random) -> None:
    system.cluster.kill("api")


def kill_dispatcher(system: System, _: Random) -> None:
    system.cluster.kill("dispatcher")


def freeze_dispatcher(system: System, _: Random) -> None:
    system.cluster.freeze("dispatcher")


def kill_valkey(system: System, _: Random) -> None:
    system.kill_server(system.servers.valkey)


def wipe_valkey(system: System, _: Random) -> None:
    system.kill_server(system.servers.valkey)
    system.forget_redis()


def freeze_valkey(system: System, _: Random) -> None:
    system.freeze_server(system.servers.valkey)


def kill_postgres(system: System, _: Random) -> None:
    system.kill_server(system.servers.postgres)


def kill_seaweedfs(system: System, _: Random) -> None:
    system.kill_server(system.servers.seaweedfs)


def freeze_seaweedfs(system: System, _: Random) -> None:
    system.freeze_server(system.servers.seaweedfs)


def cut_off(system: System, random: Random) -> None:
    """One process loses one server, without a word."""
    _any_link(system, random).black_hole()


def half_open(system: System, random: Random) -> None:
    _any_link(system, random).half_open()


def break_off(system: System, random: Random) -> None:
    _any_link(system, random).reset()


def slow_down(system: System, random: Random) -> None:
    _any_link(system, random).delay(random.uniform(STEP_S, 10 * STEP_S))


def lose_replies(system: System, random: Random) -> None:
    _any_link(system, random).lose_replies(random.randint(1, 3))


def _any_link(system: System, random: Random) -> Proxy:
    name = random.choice(sorted(system.links))
    return random.choice(list(system.links[name]))


FAULTS: Mapping[str, Fault] = {
    fault.__name__: fault
    for fault in (
        kill_worker,
        freeze_worker,
        drain_worker,
        kill_api,
        kill_dispatcher,
        freeze_dispatcher,
        kill_valkey,
        wipe_valkey,
        freeze_valkey,
        kill_postgres,
        kill_seaweedfs,
        freeze_seaweedfs,
        cut_off,
        half_open,
        break_off,
        slow_down,
        lose_replies,
    )
}
