from hypothesis import given
from hypothesis import strategies as st

from shared.sound import SoundSpec

SPEC = SoundSpec(
    sample_rate=16_000, duration_s=10.0, min_duration_s=0.1, max_duration_s=20.0, hop=640, bands=16
)


@given(st.integers(1, 10_000))
def test_a_whole_number_of_cells_is_as_many(num_cells: int) -> None:
    assert SPEC.cells(SPEC.seconds(num_cells)) == 16 * num_cells


def test_a_part_of_a_cell_is_one() -> None:
    assert SPEC.cells(0.041) == 32


def test_latents_of_a_fixed_length_have_it_whatever_the_duration() -> None:
    fixed = SoundSpec(
        sample_rate=4_000,
        duration_s=1.0,
        min_duration_s=0.1,
        max_duration_s=1.0,
        hop=32,
        length=128,
    )
    assert fixed.cells(0.1) == fixed.cells(1.0) == 128
