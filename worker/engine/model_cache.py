"""Which models are loaded: as many as the budget allows, the least recently used leave first."""

import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
import torch

from shared.catalog import Catalog, ModelSpec
from shared.errors import ModelUnavailable
from shared.holding import Holding, HoldingState
from worker.engine.back_off import Failure
from worker.engine.families.family import Family
from worker.engine.fetches import Fetches
from worker.engine.loader import ModelLoader, TooLarge, explain
from worker.engine.pin import Pin
from worker.engine.shelf import Shelf
from worker.engine.waiting_list import WaitingList

#: How often one who waits for a model sees whether it is there, in seconds.
GLANCE_S = 0.02

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Load:
    """The one model that is being loaded, or waits for room."""

    spec: ModelSpec
    #: What it will take; None while somebody finds that out.
    num_bytes: int | None = None
    #: Whether its bytes are taken off the budget.
    has_room: bool = False
    #: Since when it is read, on the cache's clock.
    began_at: float = 0.0
    progress: float = 0.0


class ModelCache:
    """Hold models on one device within a budget of bytes. Any thread may use it.

    A model is asked for with `acquire`, loaded by whoever calls `load_next`, and used under a pin.
    One is loaded at a time, in the order in which they were asked for. Those that have to leave for
    it get no new pins, so that it is not kept waiting for ever.
    """

    def __init__(
        self,
        catalog: Catalog,
        device: str,
        *,
        budget_bytes: float = math.inf,
        loader: ModelLoader | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        #: Called when `holdings` has news, at once and under a lock.
        self.on_change: Callable[[], None] = lambda: None
        #: How often each model was loaded, and the seconds that took.
        self.loads: Counter[str] = Counter()
        self.load_s: defaultdict[str, float] = defaultdict(float)
        #: How often each was asked for, and was warm then.
        self.asks: Counter[str] = Counter()
        self.hits: Counter[str] = Counter()
        self._catalog = catalog
        self._loader = loader or ModelLoader(device)
        self._clock = clock
        self._changed = threading.Condition()
        self._shelf = Shelf(budget_bytes)
        self._wanted = WaitingList()
        # Of models whose files are not here; others are loaded meanwhile.
        self._fetches = Fetches(self._loader, self._end_fetch)
        self._load: _Load | None = None
        self._failures: dict[str, Failure] = {}
        # What a model took when it was here last.
        self._measured: dict[str, int] = {}

    @property
    def loaded(self) -> tuple[str, ...]:
        """Which models are warm, the least recently used first."""
        with self._changed:
            return tuple(self._shelf)

    @property
    def budget_bytes(self) -> float:
        """What all models together may take."""
        return self._shelf.budget_bytes

    @property
    def used_bytes(self) -> int:
        """What they take, the one that is being loaded too."""
        with self._changed:
            return self._shelf.used_bytes

    @property
    def loading_s(self) -> float:
        """How long a model has been on its way from its files; 0 while none is."""
        with self._changed:
            load = self._load
            return self._clock() - load.began_at if load is not None and load.has_room else 0.0

    def holdings(self) -> dict[str, Holding]:
        """Tell of every model that is here, comes, or could not be loaded."""
        with self._changed:
            found = {
                name: Holding(name, HoldingState.WARM, self._shelf[name].num_bytes)
                for name in self._shelf
            }
            for name, failure in self._failures.items():
                found[name] = Holding(name, HoldingState.FAILED, reason=failure.reason)
            for name in self._wanted:
                found.setdefault(name, Holding(name, HoldingState.WAITING))
            for name in self._fetches:
                found[name] = Holding(name, HoldingState.FETCHING)
            if (load := self._load) is not None and load.has_room:
                name, state = load.spec.id, HoldingState.LOADING
                found[name] = Holding(name, state, load.num_bytes, load.progress)
            return found

    def acquire(self, model_id: str) -> "Future[Pin]":
        """Ask for a model; the future has it, pinned, once it is warm. Nothing here blocks.

        The future raises ModelUnavailable if it cannot be had. Who wants it no longer hands the
        future to `let_go`.
        """
        wanted: Future[Pin] = Future()
        with self._changed:
            refusal = self._find_refusal(model_id)
            if refusal is None:
                self.asks[model_id] += 1
                self.hits[model_id] += model_id in self._shelf
                self._wanted.add(model_id, wanted)
                if model_id not in self._shelf:
                    self._fetches.begin(self._find(model_id))
        if refusal is not None:
            wanted.set_exception(refusal)
            return wanted
        self._serve()
        # One that is canceled has its place among those that wait until somebody looks.
        wanted.add_done_callback(lambda done: self._serve() if done.cancelled() else None)
        return wanted

    @contextmanager
    def pinned(self, model_id: str) -> Iterator[None]:
        """Have a model that is warm stay until the exit."""
        with self._changed:
            pin = self._pin(model_id) if model_id in self._shelf else None
        try:
            yield
        finally:
            if pin is not None:
                pin.release()

    def get(self, model_id: str) -> Family:
        """Return a warm model; it may leave at any time unless it is pinned.

        Raises:
            ModelUnavailable: It is not warm.
        """
        with self._changed:
            if model_id not in self._shelf:
                raise ModelUnavailable(f"model {model_id} is not loaded")
            return self._shelf[model_id].family

    def load(self, model_id: str) -> Family:
        """Return a model, loaded here and now if need be; others must not hold all the budget.

        Raises:
            ModelUnavailable: It is not in the catalog or cannot be loaded.
        """
        wanted = self.acquire(model_id)
        while not wanted.done():
            self.load_next(is_over=lambda: True)
            wait([wanted], timeout=GLANCE_S)
        pin = wanted.result()
        family = pin.family
        pin.release()
        return family

    def has_room_for(self, model_id: str) -> bool:
        """Tell whether a model is here, or could be without another having to leave.

        Raises:
            ModelUnavailable: It is not in the catalog or its files cannot be read.
        """
        spec = self._find(model_id)
        try:
            self._loader.fetch(spec)
            num_bytes = self._foresee(spec)
        except Exception as error:
            raise ModelUnavailable(explain(spec, error)) from error
        with self._changed:
            return model_id in self._shelf or self._shelf.fits(num_bytes)

    def load_next(self, *, is_over: Callable[[], bool]) -> str | None:
        """Load the model that was asked for first, once there is one; names it if that went well.

        Waits for one until the wait is over; after a change of that it has to be woken.

        Raises:
            torch.AcceleratorError: The device met an error of its own.
        """
        while (load := self._choose(is_over)) is not None:
            if load.num_bytes is None:
                self._size(load)
            elif self._make_room(load, load.num_bytes):
                return self._read(load)
        return None

    def wake(self) -> None:
        """Have whoever waits for something to load see whether the wait is over."""
        with self._changed:
            self._changed.notify_all()

    def _find(self, model_id: str) -> ModelSpec:
        spec = self._catalog.get(model_id)
        if spec is None:
            raise ModelUnavailable(f"this worker's catalog has no model {model_id}")
        return spec

    def _find_refusal(self, model_id: str) -> ModelUnavailable | None:
        """Say why a model cannot be had now; None if it can, or shall be loaded."""
        try:
            self._find(model_id)
        except ModelUnavailable as error:
            return error
        failure, now = self._failures.get(model_id), self._clock()
        return None if failure is None or now >= failure.retry_at else failure.explain(now=now)

    def _pin(self, model_id: str) -> Pin:
        place = self._shelf[model_id]
        place.pins += 1

        def release() -> None:
            with self._changed:
                place.pins -= 1
                is_awaited = bool(self._wanted)
            if is_awaited:
                self._serve()

        return Pin(place.family, release)

    def _serve(self) -> None:
        """Give pins to all who wait for a model that is warm and need not leave."""
        ready: list[tuple[Future[Pin], Pin]] = []
        with self._changed:
            self._wanted.forget_canceled()
            leaving = self._leaving()
            for model_id in self._wanted:
                if model_id in self._shelf and model_id not in leaving:
                    self._shelf.touch(model_id)
                    taken = self._wanted.take(model_id)
                    ready += [(wanted, self._pin(model_id)) for wanted in taken]
            self._changed.notify_all()
        for wanted, pin in ready:
            wanted.set_result(pin)

    def _leaving(self) -> Collection[str]:
        """Name those that have to leave for the one that waits for room."""
        load = self._load
        if load is None or load.num_bytes is None or load.has_room:
            return ()
        return self._shelf.leaving(load.num_bytes)

    def _idle(self) -> list[str]:
        """Name those of the leaving that nobody uses."""
        return [name for name in self._leaving() if self._shelf[name].pins == 0]

    def _next(self) -> str | None:
        """Name the first of the models that are wanted and here, and not warm."""
        cold = (name for name in self._wanted if name not in self._shelf)
        return next((name for name in cold if name not in self._fetches), None)

    def _choose(self, is_over: Callable[[], bool]) -> _Load | None:
        """Wait for a load that something can be done for; None if the wait is over before."""
        with self._changed:
            self._changed.wait_for(lambda: self._can_go_on() or is_over())
            if not self._can_go_on():
                return None
            if self._load is None and (model_id := self._next()) is not None:
                self._load = _Load(self._find(model_id))
                self.on_change()
            return self._load

    def _can_go_on(self) -> bool:
        load = self._load
        if load is None:
            return self._next() is not None
        if load.num_bytes is None or load.has_room:
            return False  # another thread is at it
        is_wanted = load.spec.id in self._wanted
        return not is_wanted or self._shelf.fits(load.num_bytes) or bool(self._idle())

    def _end_fetch(self, spec: ModelSpec, error: Exception | None) -> None:
        if error is not None:
            self._fail(spec, error)
        with self._changed:
            self._fetches.end(spec)
            self._changed.notify_all()

    def _foresee(self, spec: ModelSpec) -> int:
        return self._measured.get(spec.id) or self._loader.foresee(spec)

    def _size(self, load: _Load) -> None:
        """Find out what a model will take, without the lock: nobody has to leave for it yet."""
        try:
            num_bytes = self._foresee(load.spec)
            if num_bytes > self.budget_bytes:
                raise TooLarge(num_bytes, self.budget_bytes)
        except Exception as error:
            self._give_up(load, error)
        else:
            with self._changed:
                load.num_bytes = num_bytes
                self._changed.notify_all()

    def _make_room(self, load: _Load, num_bytes: int) -> bool:
        """Have models leave that a load waits for; returns whether it can begin."""
        with self._changed:
            if self._load is not load or load.has_room:
                return False  # another thread was faster
            idle = self._idle()
            if load.spec.id not in self._wanted:
                idle, self._load = [], None
            for name in idle:
                log.info("model_evicted", model=name, bytes=self._shelf.drop(name).num_bytes)
            has_room = self._load is load and self._shelf.fits(num_bytes)
            if has_room:
                load.has_room, load.began_at = True, self._clock()
                self._shelf.reserved_bytes = num_bytes
            self.on_change()
        if idle:
            self._loader.tidy()
        # Who was to leave and need not may be used again.
        self._serve()
        return has_room

    def _read(self, load: _Load) -> str | None:
        """Load a model that there is room for; names it if that went well."""
        spec = load.spec
        log.info("model_loading", model=spec.id, bytes=load.num_bytes)
        try:
            family = self._loader.load(spec, lambda share: self._note(load, share))
            self.load_s[spec.id] += self._clock() - load.began_at
            return spec.id if self._keep(load, family) else None
        except torch.AcceleratorError:
            raise
        except Exception as error:
            self._give_up(load, error)
            return None

    def _note(self, load: _Load, share: float) -> None:
        load.progress = share
        self.on_change()

    def _keep(self, load: _Load, family: Family) -> bool:
        """Have a loaded model in the cache; returns whether it fits, as it was foreseen."""
        model_id, num_bytes = load.spec.id, self._loader.measure(family)
        with self._changed:
            self._load, self._shelf.reserved_bytes = None, 0
            self._measured[model_id] = num_bytes
            fits = self._shelf.fits(num_bytes)
            if fits:
                self._shelf.put(model_id, family, num_bytes)
                self._failures.pop(model_id, None)
                self.loads[model_id] += 1
            # If not, it is loaded again when there is as much room as it takes.
            self.on_change()
        log.info("model_loaded", model=model_id, bytes=num_bytes, fits=fits)
        self._serve()
        return fits

    def _give_up(self, load: _Load, error: Exception) -> None:
        with self._changed:
            self._load, self._shelf.reserved_bytes = None, 0
        self._fail(load.spec, error)

    def _fail(self, spec: ModelSpec, error: Exception) -> None:
        """Fail all who wait for a model, and leave it alone for a while."""
        with self._changed:
            now, previous = self._clock(), self._failures.get(spec.id)
            failure = Failure.after(previous, explain(spec, error), now=now)
            self._failures[spec.id] = failure
            waiting = self._wanted.take(spec.id)
            self.on_change()
        log.error("model_failed", model=spec.id, retry_in_s=failure.pause_s, exc_info=error)
        for wanted in waiting:
            refusal = failure.explain(now=now)
            refusal.__cause__ = error
            wanted.set_exception(refusal)
        self._serve()
