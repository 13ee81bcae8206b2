from pathlib import Path

from evals.samplers_page import PAGE, render

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_what_the_code_says_now() -> None:
    again = "run python -m evals.samplers_page"
    assert (ROOT / PAGE).read_text() == render(), again


def test_the_page_tells_kinds_and_predictions_apart() -> None:
    page = render()
    for words in (
        "## Zero-terminal-SNR models (sample, v_prediction)",
        "| `lcm` | new at every step | 50 |",
        "sample: → `dpmpp_2m`",
        "it needs a distilled model",
    ):
        assert words in page
