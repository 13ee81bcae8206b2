import pytest

from bench.curve import BatchCurve
from bench.engine import GATED_LOAD, SLOW_TRACES, ThroughputRound, judge
from bench.latency import ENGINE, FIFO, Latency, Round, measure_services
from bench.mix import KINDS, draw_mix, kind_of
from bench.throughput import Work
from models import CATALOG
from shared.catalog import Catalog

GOOD_CURVE = BatchCurve({1: 0.010, 8: 0.040})  # 200 rows per second at best
FLAT_CURVE = BatchCurve({1: 0.010, 8: 0.078})


def work(*, rate: float = 190, forward: float = 0.95) -> ThroughputRound:
    engine = Work(int(10 * rate), 10.0, {"forward": 10 * forward})
    return ThroughputRound(GOOD_CURVE, engine, Work(1000, 10.0), Work(1000, 10.0))


def waits(*, mean: float, p95: float) -> Round:
    """FIFO takes 4 and 10 at every load."""
    return {
        (load, policy): latency
        for load in SLOW_TRACES
        for policy, latency in ((FIFO, Latency(12, 4.0, 10.0)), (ENGINE, Latency(12, mean, p95)))
    }


GOOD_WAITS = waits(mean=1.5, p95=4.0)


def missed(**changes: object) -> list[str]:
    figures = {
        "work": [work()],
        "waits": [GOOD_WAITS],
        "slow_curves": [FLAT_CURVE],
        "slow_waits": [GOOD_WAITS],
    }
    return [gate.name for gate in judge(**figures | changes) if not gate.passes]  # type: ignore[arg-type]


def test_good_figures_pass() -> None:
    assert missed() == []


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"work": [work(rate=179)]}, "batch curve"),
        ({"work": [work(forward=0.89)]}, "share"),
        ({"waits": [waits(mean=2.1, p95=4.0)]}, "mean latency at"),
        ({"waits": [waits(mean=1.5, p95=5.1)]}, "p95 latency at"),
        ({"slow_curves": [GOOD_CURVE]}, "what batching gains"),
        ({"slow_waits": [waits(mean=4.3, p95=4.0)]}, "worst load"),
    ],
)
def test_each_target_is_missed_by_its_own_figure(changes: dict[str, object], part: str) -> None:
    (name,) = missed(**changes)
    assert part in name


def test_one_bad_round_of_five_changes_no_median() -> None:
    assert missed(work=[work(rate=20), *[work()] * 4]) == []
    assert missed(waits=[waits(mean=40, p95=90), *[GOOD_WAITS] * 4]) == []


def test_one_bad_load_is_enough_where_batching_gains_nothing() -> None:
    bad = GOOD_WAITS | {(2.0, ENGINE): Latency(12, 4.3, 9.0)}
    assert missed(slow_waits=[bad]) != []
    assert missed(waits=[bad]) == []  # the other model has its target at one load
    assert GATED_LOAD != 2.0


def test_the_time_of_each_kind_is_measured() -> None:
    jobs = draw_mix(Catalog.load(CATALOG).models["demo"], decks=1, seed=1)
    services = measure_services(jobs, lambda group: None)
    assert set(services) == set(KINDS)
    assert {kind_of(job) for job in jobs} == set(KINDS)
