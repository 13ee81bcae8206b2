from dataclasses import replace
from pathlib import Path

import pytest

from evals.label_parity import FLAGGED, MAX_LEVELS, SAMPLERS, LabelRow, compare_labels
from evals.stock import FLAGS
from shared.vocab import Sampler, Schedule

ROW = LabelRow(Sampler.DDIM, Schedule.NATIVE, 4, 3.0, 7, True, MAX_LEVELS)


@pytest.mark.slow
def test_every_sampler_draws_the_labels_of_stock_diffusers(tmp_path: Path) -> None:
    rows = compare_labels(tmp_path, [3, 5])
    assert {row.sampler for row in rows} == set(SAMPLERS)
    assert {row.schedule for row in rows if row.sampler in FLAGGED} == {Schedule.NATIVE, *FLAGS}
    assert all(row.passes for row in rows)


def test_company_may_change_a_level_and_no_company_nothing() -> None:
    assert ROW.passes
    assert not replace(ROW, most_levels=MAX_LEVELS + 1).passes
    assert not replace(ROW, is_bitwise_alone=False).passes
