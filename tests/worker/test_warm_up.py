from pathlib import Path

import pytest

from shared.errors import ConfigurationError
from shared.holding import HoldingState
from tests.fixtures.shelves import LumpLoader, catalog_of
from worker import memory
from worker.engine import Engine, ModelCache
from worker.engine.cost import Cost
from worker.stock import take_stock
from worker.warm_up import WarmUp

SIZES = {"small": 3, "large": 9, "default": 5}
BUDGET = 10


class NoCosts:
    """Nothing is known from before."""

    def recall(self, model_id: str) -> list[Cost]:
        return []

    def forget(self, model_id: str) -> None:
        raise AssertionError("nothing was known")


class Loading(Engine):
    """An engine that loads, and measures nothing: lumps run no forwards."""

    def __init__(self, models: ModelCache) -> None:
        self.models = models

    def warm_up(self, model_id: str, *, known: object = ()) -> bool:
        self.models.load(model_id)
        return False

    def warming(self) -> dict[str, float]:
        return {"default": 0.5, "gone": 0.1}


def make(*, failing: tuple[str, ...] = ()) -> tuple[WarmUp, ModelCache]:
    loader = LumpLoader(SIZES, failing=set(failing))
    models = ModelCache(catalog_of(SIZES), "cpu", budget_bytes=BUDGET, loader=loader)  # type: ignore[arg-type]
    return WarmUp(Loading(models), models, NoCosts()), models  # type: ignore[arg-type]


def catalog_with_default() -> object:
    catalog = catalog_of(SIZES)
    return type(catalog)(default="default", models=catalog.models)


def test_as_many_are_loaded_as_fit_the_default_one_first() -> None:
    warm_up, models = make()
    warm_up.load_what_fits(catalog_with_default())  # type: ignore[arg-type]
    assert models.loaded == ("default", "small")


def test_one_that_cannot_be_loaded_keeps_no_other_away_unless_it_was_named() -> None:
    warm_up, models = make(failing=("default",))
    warm_up.load_what_fits(catalog_with_default())  # type: ignore[arg-type]
    assert models.loaded == ("small",)
    assert models.holdings()["default"].state is HoldingState.FAILED
    with pytest.raises(ConfigurationError, match="model default cannot be loaded"):
        make(failing=("default",))[0].load_named(catalog_of(SIZES), "small, default")


def test_what_was_named_has_to_be_there_and_to_fit() -> None:
    warm_up, models = make()
    warm_up.load_named(catalog_of(SIZES), "small, default")
    assert models.loaded == ("small", "default")
    with pytest.raises(ConfigurationError, match="small, large take more than the 10 bytes of"):
        make()[0].load_named(catalog_of(SIZES), "small, large")
    with pytest.raises(ConfigurationError, match="no model 'other'; known: small, large, default"):
        make()[0].load_named(catalog_of(SIZES), "other")


def test_stock_tells_what_is_warm_and_what_is_being_measured() -> None:
    warm_up, models = make()
    warm_up.load_named(catalog_of(SIZES), "small, default")
    stock = take_stock(models, Loading(models))
    assert {(h.model, h.state, h.num_bytes, h.progress) for h in stock.holdings} == {
        ("small", HoldingState.WARM, 3, None),
        ("default", HoldingState.WARMING, 5, 0.5),
    }
    assert set(stock.warm_queues) == {
        "small.interactive", "small.batch", "default.interactive", "default.batch",
    }  # fmt: skip
    assert stock.budget_bytes == BUDGET


def test_a_container_has_what_it_may_have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limits = [tmp_path / name for name in ("max", "limit", "missing")]
    limits[0].write_text("max\n")
    monkeypatch.setattr(memory, "CGROUP_LIMITS", limits)
    limits[1].write_text("9223372036854771712\n")  # no limit, as the older way says it
    total = memory.machine_bytes()
    assert total > 2**28
    limits[1].write_text(f"{2**28}\n")
    assert memory.machine_bytes() == 2**28
    assert memory.choose_budget("cpu") == 2**27
