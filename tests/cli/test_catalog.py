"""How `latentq models` says what a model makes and takes."""

from typing import Any

import pytest

from cli.commands.catalog import describe_input, describe_output

PICTURE: dict[str, Any] = {
    "width": 64, "height": 48, "duration_s": None, "labels": None, "max_tokens": 24,
}  # fmt: skip
SOUND = PICTURE | {"width": None, "height": None, "duration_s": 2.5}


@pytest.mark.parametrize(
    ("model", "makes", "takes"),
    [
        (PICTURE, "64x48 picture", "24 tokens"),
        (SOUND, "sound of 2.5 s", "24 tokens"),
        # Two names of one label are one.
        (PICTURE | {"labels": {"tench": 0, "Tinca": 0, "cock": 7}}, "64x48 picture", "2 labels"),
        (PICTURE | {"max_tokens": 0}, "64x48 picture", "prompts"),
    ],
    ids=["picture", "sound", "labels", "pipeline"],
)
def test_what_a_model_makes_and_takes(model: dict[str, Any], makes: str, takes: str) -> None:
    assert (describe_output(model), describe_input(model)) == (makes, takes)
