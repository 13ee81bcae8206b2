import re

import pytest
import torch
import typer

from bench.curve import BatchCurve
from bench.device import find_device, milli
from bench.device_options import VARIANTS, Measured, measure_options, tabulate_options
from models import CATALOG
from shared.catalog import Catalog


def test_a_processor_is_measured_in_its_own_seconds_and_a_gpu_on_the_wall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert find_device("cpu").unit == "CPU s"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    gpu = find_device("cuda")
    assert gpu.unit == "s"
    with gpu.quiet():
        assert gpu.clock() <= gpu.thread_clock() <= gpu.clock()
    assert [milli(unit) for unit in ("CPU s", "s")] == ["CPU ms", "ms"]


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_here_is_said_not_to_be(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(typer.BadParameter, match=re.escape(f"this machine has no {name} ")):
        find_device(name)
    with pytest.raises(typer.BadParameter, match="one of cpu, cuda, mps"):
        find_device("gpu")


def test_each_option_is_shown_beside_none() -> None:
    def curve(factor: float) -> BatchCurve:
        return BatchCurve({1: 0.010 * factor, 8: 0.040 * factor})

    rounds: list[Measured] = [
        {"none": curve(slowness), 'dtype = "float16"': "refused", "compile = true": curve(0.5)}
        for slowness in (1.0, 1.0, 10.0)
    ]
    assert tabulate_options(rounds, unit="CPU s").rows == [
        ["none", "10.0 (1.00)", "40.0 (1.00)"],
        ['dtype = "float16"', "refused", "refused"],
        ["compile = true", "5.0 (0.50)", "20.0 (0.50)"],
    ]


@pytest.mark.slow
def test_options_are_measured_by_the_models_own_forwards() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    catalog = Catalog.load(CATALOG)
    measured = measure_options(catalog, "cpu", repeats=1, clock=clock, has_compiled=False)
    assert list(measured) == [words for words in VARIANTS if words != "compile = true"]
    for curve in measured.values():
        assert isinstance(curve, BatchCurve)
        assert curve.seconds == {1: 1.0, 2: 1.0, 8: 1.0, 16: 1.0}
