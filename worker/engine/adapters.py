"""Which adapters are loaded."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import Future
from dataclasses import dataclass, field

import structlog

from shared.adapters import AdapterSpec, AdapterUse
from shared.errors import AdapterUnavailable, OutOfMemory
from worker.engine.lora import ActiveAdapter, Branch
from worker.engine.lora_file import UnusableFile, load, measure

#: What is kept in memory at most, unless somebody says otherwise.
DEFAULT_MAX_BYTES, DEFAULT_MAX_ADAPTERS = 512 * 2**20, 64
#: How often a job that waits for room is asked whether it still wants it, in seconds.
ASK_S = 0.1

log = structlog.get_logger(__name__)

Branches = Mapping[str, Mapping[str, Branch]]


@dataclass(slots=True, eq=False)
class _Held:
    """An adapter that is loaded, or being loaded by one of the jobs that hold it."""

    num_bytes: int
    branches: "Future[Branches]" = field(default_factory=Future)
    #: Jobs in flight that hold it.
    num_holders: int = 0


class AdapterCache:
    """Load adapters when jobs need them, and keep those that were needed last.

    Never more than so many bytes and so many adapters: what no job in flight holds makes room, the
    least recently used first. Where that is not enough a job waits in its own thread until others
    have ended, and holds nothing meanwhile. Any thread may use it.
    """

    def __init__(
        self,
        specs: Mapping[str, AdapterSpec],
        device: str,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_adapters: int = DEFAULT_MAX_ADAPTERS,
    ) -> None:
        self._specs = specs
        self._device = device
        self._max_bytes = max_bytes
        self._max_adapters = max_adapters
        # The least recently used first.
        self._held: OrderedDict[str, _Held] = OrderedDict()
        # What jobs that wait for room need, in the order in which they came.
        self._waiting: list[Mapping[str, int]] = []
        self._changed = threading.Condition()

    @property
    def loaded(self) -> dict[str, int]:
        """The bytes of each adapter in memory."""
        with self._changed:
            return {adapter_id: held.num_bytes for adapter_id, held in self._held.items()}

    def take(
        self, uses: Sequence[AdapterUse], *, is_wanted: Callable[[], bool] = lambda: True
    ) -> tuple[ActiveAdapter, ...] | None:
        """Hold the adapters of a job until they are released; None if it is wanted no more.

        Raises:
            AdapterUnavailable: One is not in the catalog, or its file cannot be used.
            OutOfMemory: They alone are more than is kept.
        """
        needs = {use.id: self._measure(use.id) for use in uses}
        if sum(needs.values()) > self._max_bytes or len(needs) > self._max_adapters:
            raise OutOfMemory(
                f"the job's {len(needs)} adapters take {sum(needs.values()):,} bytes; "
                f"this worker keeps at most {self._max_adapters} in {self._max_bytes:,} bytes"
            )
        with self._changed:
            if not self._wait_for_room(needs, is_wanted):
                return None
            missing = self._hold(needs)
        try:
            for adapter_id in missing:
                self._load(adapter_id)
            return tuple(
                ActiveAdapter(use.id, use.weight, self._held[use.id].branches.result())
                for use in uses
            )
        except BaseException:
            self.release(needs.keys())
            raise

    def release(self, adapter_ids: Set[str]) -> None:
        """Say that a job needs its adapters no more."""
        with self._changed:
            for adapter_id in adapter_ids:
                held = self._held[adapter_id]
                held.num_holders -= 1
                if held.num_holders == 0 and held.branches.exception() is not None:
                    del self._held[adapter_id]
            self._changed.notify_all()

    def _measure(self, adapter_id: str) -> int:
        if adapter_id not in self._specs:
            raise AdapterUnavailable(f"this worker's catalog has no adapter {adapter_id}")
        with self._changed:
            if (held := self._held.get(adapter_id)) is not None:
                return held.num_bytes
        try:
            return measure(self._specs[adapter_id].path)
        except UnusableFile as error:
            raise _explain(adapter_id, error) from error

    def _wait_for_room(self, needs: Mapping[str, int], is_wanted: Callable[[], bool]) -> bool:
        """Wait until what is needed may be held; returns whether it is still wanted."""
        self._waiting.append(needs)
        try:
            while not self._has_room(needs):
                if not is_wanted():
                    return False
                self._changed.wait(ASK_S)
        finally:
            self._waiting = [others for others in self._waiting if others is not needs]
            self._changed.notify_all()
        return True

    def _has_room(self, needs: Mapping[str, int]) -> bool:
        """Tell whether what is needed fits beside what other jobs hold, and nobody came earlier."""
        kept = {
            adapter_id: held.num_bytes
            for adapter_id, held in self._held.items()
            if held.num_holders > 0
        }
        if needs.keys() <= kept.keys():
            return True  # it takes no room
        kept |= needs
        fits = sum(kept.values()) <= self._max_bytes and len(kept) <= self._max_adapters
        return fits and self._waiting[0] is needs

    def _hold(self, needs: Mapping[str, int]) -> list[str]:
        """Hold what is needed and drop what it needs the room of; returns what is to be loaded."""
        missing = [adapter_id for adapter_id in needs if adapter_id not in self._held]
        for adapter_id, num_bytes in needs.items():
            held = self._held.setdefault(adapter_id, _Held(num_bytes))
            held.num_holders += 1
            self._held.move_to_end(adapter_id)
        idle = [adapter_id for adapter_id, held in self._held.items() if held.num_holders == 0]
        for adapter_id in idle:
            num_bytes = sum(held.num_bytes for held in self._held.values())
            if num_bytes <= self._max_bytes and len(self._held) <= self._max_adapters:
                break
            del self._held[adapter_id]
            log.info("adapter_dropped", adapter=adapter_id)
        return missing

    def _load(self, adapter_id: str) -> None:
        branches = self._held[adapter_id].branches
        try:
            branches.set_result(load(self._specs[adapter_id].path, self._device))
        except UnusableFile as error:
            branches.set_exception(_explain(adapter_id, error))
        except BaseException as error:
            branches.set_exception(error)
        else:
            log.info("adapter_loaded", adapter=adapter_id)


def _explain(adapter_id: str, error: UnusableFile) -> AdapterUnavailable:
    explained = AdapterUnavailable(f"adapter {adapter_id} {error}")
    explained.__cause__ = error
    return explained
