import gc
import random
import sys
import threading
import weakref
from concurrent.futures import Future
from concurrent.futures import wait as wait_for

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from shared.errors import HubUnavailable, ModelUnavailable
from shared.holding import Holding, HoldingState
from tests.fixtures.shelves import DEMO, LumpLoader, catalog_of
from worker.engine import ModelCache
from worker.engine.back_off import FIRST_S, LONGEST_S
from worker.engine.loader import explain
from worker.engine.pin import Pin, let_go

SIZES = {"a": 3, "b": 4, "c": 5, "d": 6, "huge": 11}
BUDGET = 10
PATIENCE_S = 20


def make_cache(loader: LumpLoader | None = None, **changes: object) -> ModelCache:
    loader = loader or LumpLoader(SIZES)
    arguments = {"budget_bytes": BUDGET, "loader": loader} | changes
    return ModelCache(catalog_of(loader.sizes), "cpu", **arguments)  # type: ignore[arg-type]


def load_all(cache: ModelCache) -> None:
    """Load whatever can be loaded now."""
    while cache.load_next(is_over=lambda: True) is not None:
        pass


def acquire(cache: ModelCache, model_id: str) -> Pin:
    wanted = cache.acquire(model_id)
    load_all(cache)
    return wanted.result(0)


Ask = tuple[str, Future[Pin]]


class Machine(RuleBasedStateMachine):
    """The cache against a list of what is warm and lists of who waits."""

    asks = Bundle("asks")

    def __init__(self) -> None:
        super().__init__()
        self.cache = make_cache()
        self.warm: list[str] = []  # the least recently used first
        self.waiting: dict[str, list[Ask]] = {}  # who was asked for first is first
        self.granted: list[Ask] = []
        self.target: str | None = None

    def is_used(self, model_id: str) -> bool:
        return any(name == model_id for name, _ in self.granted)

    def leaving(self) -> list[str]:
        found: list[str] = []
        for is_used in (False, True):
            for name in self.warm:
                left = sum(SIZES[n] for n in self.warm if n not in found)
                need = 0 if self.target is None else SIZES[self.target]
                if left + need > BUDGET and self.is_used(name) is is_used:
                    found.append(name)
        return found

    def serve(self) -> None:
        self.waiting = {name: asks for name, asks in self.waiting.items() if asks}
        leaving = self.leaving()
        for name in [n for n in self.waiting if n in self.warm and n not in leaving]:
            self.warm = [other for other in self.warm if other != name] + [name]
            self.granted += self.waiting.pop(name)

    @rule(target=asks, model_id=st.sampled_from(["a", "b", "c", "d"]))
    def ask(self, model_id: str) -> Ask:
        one = model_id, self.cache.acquire(model_id)
        self.waiting.setdefault(model_id, []).append(one)
        self.serve()
        return one

    @rule(one=consumes(asks))
    def let_go(self, one: Ask) -> None:
        let_go(one[1])
        for asks in (self.granted, self.waiting.get(one[0], [])):
            if one in asks:
                asks.remove(one)
        self.serve()

    @rule()
    def load(self) -> None:
        loaded = self.cache.load_next(is_over=lambda: True)
        if self.target not in self.waiting:
            self.target = None
            self.serve()
            cold = [name for name in self.waiting if name not in self.warm]
            self.target = cold[0] if cold else None
        if self.target is None:
            assert loaded is None
            return
        idle = [name for name in self.leaving() if not self.is_used(name)]
        self.warm = [name for name in self.warm if name not in idle]
        if sum(SIZES[name] for name in self.warm) + SIZES[self.target] <= BUDGET:
            assert loaded == self.target
            self.serve()
            self.warm.append(self.target)
            self.target = None
        else:
            assert loaded is None
        self.serve()

    @invariant()
    def agrees(self) -> None:
        assert list(self.cache.loaded) == self.warm
        assert self.cache.used_bytes == sum(SIZES[name] for name in self.warm) <= BUDGET
        assert not any(future.done() for asks in self.waiting.values() for _, future in asks)
        for model_id, future in self.granted:
            assert future.result(0).family is self.cache.get(model_id)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)


def test_the_least_recently_used_leaves_and_only_as_many_as_have_to() -> None:
    cache = make_cache()
    for model_id in ("a", "b", "a"):
        acquire(cache, model_id).release()
    assert cache.loaded == ("b", "a")
    acquire(cache, "c").release()
    assert cache.loaded == ("a", "c")


def test_one_in_use_stays_and_gets_no_more_pins_while_another_waits_for_its_room() -> None:
    cache = make_cache()
    pin = acquire(cache, "d")
    wanted, again = cache.acquire("c"), None
    load_all(cache)
    again = cache.acquire("d")
    load_all(cache)
    assert not wanted.done()
    assert not again.done()
    assert cache.holdings()["c"].state is HoldingState.WAITING
    pin.release()
    load_all(cache)
    wanted.result(0).release()
    load_all(cache)
    assert again.result(0).family is cache.get("d")
    assert cache.loaded == ("d",)


def test_who_need_not_leave_any_more_is_used_again() -> None:
    cache = make_cache()
    pin = acquire(cache, "d")
    wanted = cache.acquire("c")
    load_all(cache)
    again = cache.acquire("d")
    let_go(wanted)
    load_all(cache)
    assert again.result(0).family is pin.family
    assert cache.loaded == ("d",)


def test_a_model_larger_than_the_budget_fails_with_what_would_do() -> None:
    cache = make_cache()
    acquire(cache, "a").release()
    wanted = cache.acquire("huge")
    load_all(cache)
    with pytest.raises(ModelUnavailable, match=r"takes 11 bytes .* has 10 .* of 11 would do"):
        wanted.result(0)
    assert cache.loaded == ("a",)


def test_one_that_takes_more_than_foreseen_has_others_leave_and_never_goes_over() -> None:
    loader = LumpLoader(SIZES, foreseen={"d": 2})
    cache = make_cache(loader)
    pins = [acquire(cache, model_id) for model_id in ("a", "b")]
    wanted = cache.acquire("d")
    load_all(cache)
    assert (cache.loaded, cache.used_bytes) == (("a", "b"), 7)
    for pin in pins:
        pin.release()
    load_all(cache)
    assert wanted.done()
    assert cache.used_bytes <= BUDGET
    assert loader.begun["d"] == 2


def test_one_that_is_asked_for_by_many_at_once_is_loaded_once() -> None:
    loader = LumpLoader(SIZES, gates={"a": threading.Event()})
    cache = make_cache(loader)
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.append(cache.load("a")), daemon=True)
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    loader.gates["a"].set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert loader.begun == {"a": 1}
    assert results == [cache.get("a")] * 8


def test_while_one_loads_the_others_are_used_and_its_bytes_are_taken() -> None:
    loader = LumpLoader(SIZES, gates={"c": threading.Event()})
    cache = make_cache(loader)
    acquire(cache, "a").release()
    wanted = cache.acquire("c")
    thread = threading.Thread(target=cache.load_next, kwargs={"is_over": lambda: True})
    thread.start()
    while not loader.begun["c"]:
        pass
    assert cache.acquire("a").done()
    assert cache.used_bytes == 8
    assert cache.holdings()["c"] == Holding("c", HoldingState.LOADING, 5, 0.5)
    loader.gates["c"].set()
    assert wanted.result(PATIENCE_S).family is cache.get("c")
    thread.join()


def test_a_failure_fails_all_who_wait_and_is_tried_again_ever_later() -> None:
    now = 0.0
    loader = LumpLoader(SIZES, failing={"a"})
    cache = make_cache(loader, clock=lambda: now)
    pause_s, tries = FIRST_S, 0
    while pause_s < 2 * LONGEST_S:
        waiting = [cache.acquire("a") for _ in range(2)]
        load_all(cache)
        tries += 1
        for wanted in (*waiting, cache.acquire("a")):
            with pytest.raises(
                ModelUnavailable, match="model a cannot be loaded; it is tried"
            ) as e:
                wanted.result(0)
            assert "broken" not in str(e.value)
        now += min(pause_s, LONGEST_S) - 1
        assert cache.acquire("a").done()
        assert loader.begun["a"] == tries
        assert cache.holdings()["a"].state is HoldingState.FAILED
        now += 1
        pause_s *= 2
    loader.failing.clear()
    acquire(cache, "a").release()
    assert cache.holdings() == {"a": Holding("a", HoldingState.WARM, 3)}
    # One that was well in between is tried again as soon as the first time.
    acquire(cache, "b").release()
    acquire(cache, "c").release()
    loader.failing.add("a")
    cache.acquire("a")
    load_all(cache)
    now += FIRST_S
    assert not cache.acquire("a").done()


def test_a_model_that_says_itself_why_is_quoted_and_no_path_is_told() -> None:
    said = ModelUnavailable('dtype = "float32" is always served')
    assert explain(DEMO, said) == said.detail
    assert explain(DEMO, OSError("/secret/place")) == "model demo cannot be loaded"
    missing = explain(DEMO, FileNotFoundError("/secret/place"))
    assert missing == "model demo cannot be loaded: its files are not all there"
    away = explain(DEMO, HubUnavailable("owner/name at a place"))
    assert away == "model demo cannot be loaded: its files cannot be fetched from the hub"


def test_what_is_not_in_the_catalog_is_not_asked_for() -> None:
    with pytest.raises(ModelUnavailable, match="catalog has no model x"):
        make_cache().acquire("x").result(0)


def test_a_model_that_left_is_freed_at_once() -> None:
    cache = make_cache()
    pin = acquire(cache, "d")
    gone = weakref.ref(pin.family)
    pin.release()
    gc.disable()
    try:
        acquire(cache, "c").release()
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("seed", range(3))
def test_many_threads_never_go_over_the_budget_nor_wait_for_ever(seed: int) -> None:
    cache = make_cache()
    is_over = threading.Event()
    most: list[int] = []

    def load() -> None:
        while not is_over.is_set():
            cache.load_next(is_over=is_over.is_set)
            most.append(cache.used_bytes)

    def use(rng: random.Random) -> None:
        for _ in range(60):
            wanted = cache.acquire(rng.choice("abcd"))
            if rng.random() < 0.2:
                let_go(wanted)
                continue
            pin = wanted.result(PATIENCE_S)
            with cache.pinned(pin.family.spec.id):
                assert cache.get(pin.family.spec.id) is pin.family
            most.append(cache.used_bytes)
            pin.release()

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    loaders = [threading.Thread(target=load, daemon=True) for _ in range(2)]
    users = [
        threading.Thread(target=use, args=(random.Random(100 * seed + n),), daemon=True)
        for n in range(6)
    ]
    for thread in (*loaders, *users):
        thread.start()
    for thread in users:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    is_over.set()
    cache.wake()
    for thread in loaders:
        thread.join(PATIENCE_S)
    sys.setswitchinterval(interval_s)
    assert max(most) <= BUDGET
    assert not wait_for([cache.acquire(name) for name in cache.loaded[:1]], timeout=0).not_done
