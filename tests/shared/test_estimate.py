import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import CATALOG
from shared.adapters import MAX_ADAPTERS
from shared.catalog import Catalog
from shared.estimate import MAX_MS, CostCell, DeviceCosts, Fleet, Stage, Workload
from shared.request import GenerationRequest
from shared.vocab import GuidanceForm, Sampler

SPEC = Catalog.load(CATALOG).models["demo"]
QUEUE = "demo.interactive"

times = st.floats(0.01, 1e4)
#: Measured curves by the side of a square of latents.
tables = st.dictionaries(
    st.integers(1, 32),
    st.dictionaries(st.integers(1, 16), times, min_size=1, max_size=5),
    min_size=1,
    max_size=4,
)
requests = st.fixed_dictionaries(
    {
        "steps": st.integers(1, 999),
        "sampler": st.sampled_from(Sampler),
        "guidance": st.sampled_from([1.0, 7.5]),
        "num_outputs": st.integers(1, 8),
        "width": st.integers(1, 16).map(lambda n: 8 * n),
        "height": st.integers(1, 16).map(lambda n: 8 * n),
        "determinism": st.sampled_from(["fast", "exact"]),
    }
)


def request(**changes: object) -> GenerationRequest:
    fields: dict[str, object] = {
        "prompt": "a red star",
        "model": "demo",
        "sampler": "ddim",
        "schedule": "native",
        "steps": 10,
        "guidance": 1.0,
        "seed": 7,
        "width": 64,
        "height": 64,
    }
    return GenerationRequest.model_validate(fields | changes)


def cells(
    table: Mapping[int, Mapping[int, float]], *, stage: Stage = Stage.FORWARD
) -> list[CostCell]:
    return [
        CostCell("demo", "cpu", Workload(stage, (1, 4, side, side), 77), rows, ms, 5)
        for side, curve in table.items()
        for rows, ms in curve.items()
    ]


def predict(table: Mapping[int, Mapping[int, float]], **changes: object) -> float:
    seconds = DeviceCosts(cells(table)).predict_s(request(**changes), SPEC)
    assert seconds is not None
    return seconds


def test_each_row_is_charged_with_its_share_of_the_forward_that_the_engine_would_run() -> None:
    gaining = {16: {1: 10.0, 2: 11.0, 4: 13.0, 8: 16.0}}  # the knee is at 8 rows
    assert predict(gaining) == pytest.approx(10 * 16 / 8 / 1000)
    assert predict(gaining, guidance=2.0, num_outputs=3) == pytest.approx(60 * 16 / 8 / 1000)
    flat = {16: {1: 10.0, 2: 19.0, 4: 40.0, 8: 80.0}}  # one job at a time
    assert predict(flat) == pytest.approx(10 * 10 / 1000)
    assert predict(flat, guidance=2.0) == pytest.approx(10 * 19 / 1000)
    exact = {16: {1: 10.0, 2: 19.0, 8: 80.0, 16: 170.0}}
    assert predict(exact, determinism="exact") == pytest.approx(10 * 80 / SPEC.exact_rows / 1000)


@pytest.mark.parametrize("form", [GuidanceForm.TOLD, GuidanceForm.NONE])
def test_a_model_that_predicts_once_for_each_step_is_charged_for_one_row(
    form: GuidanceForm,
) -> None:
    costs = DeviceCosts(cells({16: {1: 10.0, 2: 19.0, 4: 40.0, 8: 80.0}}))
    guided = request(guidance=2.0)
    assert costs.predict_s(guided, SPEC) == pytest.approx(10 * 19 / 1000)
    assert costs.predict_s(guided, replace(SPEC, guidance=form)) == pytest.approx(10 * 10 / 1000)


def test_forwards_are_counted_not_steps() -> None:
    flat = {16: {1: 10.0}}
    assert predict(flat, sampler="heun", steps=10) == pytest.approx(19 * 10 / 1000)
    image = {"id": "file_1", "sha256": "ab" * 32}
    half = predict(flat, init_image=image, strength=0.5)
    assert half == pytest.approx(5 * 10 / 1000)


def test_a_size_that_was_never_measured_lies_between_those_that_were() -> None:
    table = {8: {1: 1.0}, 16: {1: 4.0}, 32: {1: 40.0}}
    assert predict(table, width=64, height=64) == pytest.approx(0.040)
    # 512 places are a third of the way from 256 to 1,024; on its side it is the same.
    assert predict(table, width=128, height=64) == pytest.approx(0.160)
    assert predict(table, width=64, height=128) == pytest.approx(0.160)
    assert predict({16: {1: 4.0}}, width=128, height=128) == pytest.approx(0.160)


def test_decoding_is_added_for_each_output_where_it_is_known() -> None:
    known = cells({16: {1: 10.0}}) + cells({16: {1: 50.0}}, stage=Stage.DECODE)
    seconds = DeviceCosts(known).predict_s(request(num_outputs=2), SPEC)
    assert seconds == pytest.approx(20 * 0.010 + 2 * 0.050)


def test_adapters_cost_what_as_many_did_or_fewer_where_nobody_had_as_many() -> None:
    two = [CostCell("demo", "cpu", Workload(Stage.FORWARD, (1, 4, 16, 16), 77, 2), 1, 15.0, 5)]

    def seconds(known: list[CostCell], num_adapters: int) -> float | None:
        adapters = [{"id": str(n), "weight": 1.0} for n in range(num_adapters)]
        return DeviceCosts(known).predict_s(request(adapters=adapters), SPEC)

    none = cells({16: {1: 10.0}})
    found = [seconds([*none, *two], num_adapters) for num_adapters in range(4)]
    assert found == [pytest.approx(s) for s in (0.1, 0.1, 0.15, 0.15)]
    assert [seconds(none, n) for n in (0, 3)] == [pytest.approx(0.1)] * 2
    # Better than nothing.
    assert [seconds(two, n) for n in (0, 3)] == [pytest.approx(0.15)] * 2


def test_what_no_forward_was_measured_of_is_not_predicted() -> None:
    assert DeviceCosts([]).predict_s(request(), SPEC) is None
    decoding = cells({16: {1: 50.0}}, stage=Stage.DECODE)
    assert DeviceCosts(decoding).predict_s(request(), SPEC) is None


@given(tables, tables, requests)
def test_more_work_never_takes_less(
    table: dict[int, dict[int, float]],
    decoding: dict[int, dict[int, float]],
    fields: dict[str, object],
) -> None:
    costs = DeviceCosts(cells(table) + cells(decoding, stage=Stage.DECODE))

    def seconds(**changes: object) -> float:
        found = costs.predict_s(request(**(fields | changes)), SPEC)
        assert found is not None
        return found

    here = seconds()
    assert 0 < here < math.inf
    for name, more in (("steps", 1), ("num_outputs", 1), ("width", 8), ("height", 24)):
        value = fields[name]
        assert isinstance(value, int)
        if name != "num_outputs" or value < 8:
            assert seconds(**{name: value + more}) >= here * (1 - 1e-9)
    assert seconds(guidance=7.5) >= seconds(guidance=1.0) * (1 - 1e-9)


@given(st.floats(0.01, 1e3), requests)
def test_guidance_doubles_what_rows_cost_where_each_costs_the_same(
    ms: float, fields: dict[str, object]
) -> None:
    table = {16: {rows: ms * rows for rows in (1, 2, 4, 8)}}
    plain = predict(table, **(fields | {"guidance": 1.0}))
    assert predict(table, **(fields | {"guidance": 3.0})) == pytest.approx(2 * plain)


def fleet(**ms: float) -> Fleet:
    return Fleet(
        workers={QUEUE: {"slow": 3, "fast": 1, "new": 5}, "demo.batch": {"new": 1}},
        costs={
            ("demo", device): DeviceCosts(cells({16: {1: each}})) for device, each in ms.items()
        },
    )


def test_devices_count_by_the_share_of_jobs_that_they_take() -> None:
    seconds = fleet(slow=400.0, fast=100.0, away=1.0).predict_s(QUEUE, request(), SPEC)
    # Three of 4 s and one of 1 s do 7 jobs in 4 s; four workers spend 16 s on them.
    assert seconds == pytest.approx(16 / 7)


def test_without_a_known_worker_nothing_is_predicted() -> None:
    known = fleet(slow=400.0)
    assert known.predict_s(QUEUE, request(), SPEC) == pytest.approx(4.0)
    assert known.predict_s("demo.batch", request(), SPEC) is None
    assert known.predict_s("other.batch", request(), SPEC) is None


@given(
    st.sampled_from(Stage),
    st.lists(st.integers(1, 999_999), min_size=4, max_size=4).map(tuple),
    st.integers(0, 999_999),
    st.integers(0, MAX_ADAPTERS),
)
def test_a_workload_reads_back_from_its_text(
    stage: Stage, shape: tuple[int, ...], num_tokens: int, num_adapters: int
) -> None:
    workload = Workload(stage, shape, num_tokens, num_adapters)
    assert Workload.parse(str(workload)) == workload


@pytest.mark.parametrize(
    "text",
    [
        "",
        "forward",
        "forward/1x4x8x8",
        "forward/4x8/77",
        "encode/1x4x8x8/77",
        "forward/1x4x8x-8/77",
        "forward/1x4x8x8/77/",
        "forward/1x4x8x8/77/0",
        "forward/1x4x8x8/77/10",
        "forward/1x4x8x8/77/1/1",
    ],
)
def test_other_text_is_no_workload(text: str) -> None:
    with pytest.raises(ValueError, match=r"workload|Stage"):
        Workload.parse(text)


@pytest.mark.parametrize(
    ("rows", "ms", "samples"),
    [(0, 1.0, 1), (1, 0.0, 1), (1, -1.0, 1), (1, math.nan, 1), (1, 2 * MAX_MS, 1), (1, 1.0, 0)],
)
def test_what_no_measurement_gives_is_refused(rows: int, ms: float, samples: int) -> None:
    with pytest.raises(ValueError, match=r"ms for .* rows"):
        CostCell("demo", "cpu", Workload(Stage.FORWARD, (1, 4, 8, 8), 77), rows, ms, samples)


def test_a_picture_without_extent_is_refused() -> None:
    with pytest.raises(ValueError, match="no latents"):
        CostCell("demo", "cpu", Workload(Stage.FORWARD, (1, 4, 0, 8), 77), 1, 1.0, 1)
