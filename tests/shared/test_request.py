import pytest

from shared.request import GenerationRequest

COMMON = {
    "prompt": "a star",
    "model": "demo",
    "sampler": "euler",
    "schedule": "native",
    "steps": 10,
    "guidance": 2.0,
    "seed": 7,
}
PICTURE = {"width": 64, "height": 48}
SOUND = {"duration_s": 1.5, "output_format": "wav"}
#: As the version before sounds stored it.
OLD = (
    COMMON
    | PICTURE
    | {
        "negative_prompt": "",
        "guidance_rescale": 0.0,
        "num_outputs": 2,
        "init_image": None,
        "mask": None,
        "strength": None,
        "adapters": [],
        "output_format": "png",
        "allow_undistilled": False,
        "determinism": "fast",
        "service_class": "interactive",
        "priority": 5,
        "deadline_s": 86400,
        "not_before": None,
    }
)


def test_what_the_version_before_stored_is_read() -> None:
    request = GenerationRequest.model_validate(OLD)
    assert request.size == (64, 48)
    assert request.duration_s is None
    assert request.megapixel_iterations == 64 * 48 * 20 / 1e6
    assert request.recipe() == {name: OLD[name] for name in OLD if name != "not_before"}


@pytest.mark.parametrize(
    "extent",
    [
        {},
        {"width": 64},
        {"height": 64},
        PICTURE | SOUND,
        {"width": 64} | SOUND,
        {"duration_s": 0.0},
        {"duration_s": float("nan")},
    ],
    ids=str,
)
def test_it_has_a_size_or_a_duration(extent: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="duration"):
        GenerationRequest.model_validate(COMMON | extent)


def test_a_sound_has_no_size_and_costs_by_its_seconds() -> None:
    request = GenerationRequest.model_validate(COMMON | SOUND)
    with pytest.raises(ValueError, match="a sound has no width"):
        request.size  # noqa: B018 - it raises
    assert request.megapixel_iterations == 1.5 * 44_100 * 10 / 1e6
    recipe = request.recipe()
    assert recipe["duration_s"] == 1.5
    assert not {"width", "height"} & recipe.keys()
    assert GenerationRequest.model_validate(recipe) == request
