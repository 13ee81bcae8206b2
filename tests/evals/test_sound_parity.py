from dataclasses import replace
from pathlib import Path

import pytest

from evals.sound_parity import MAX_CHANGE, SOUND_FAMILIES, SoundRow, compare_sounds
from shared.vocab import Sampler, Schedule

ROW = SoundRow("audioldm2", Sampler.DDIM, Schedule.NATIVE, 4, 3.0, 0.5, True, MAX_CHANGE)


@pytest.mark.slow
@pytest.mark.parametrize("family", SOUND_FAMILIES)
def test_every_sampler_makes_the_sounds_of_stock_diffusers(tmp_path: Path, family: str) -> None:
    rows = compare_sounds(family, tmp_path, [3, 5])
    assert len(rows) >= 9
    assert all(row.passes for row in rows)


def test_company_may_change_roundings_and_no_company_nothing() -> None:
    assert ROW.passes
    assert not replace(ROW, change=1.1 * MAX_CHANGE).passes
    assert not replace(ROW, is_bitwise_alone=False).passes
