from dataclasses import replace
from pathlib import Path

import pytest

from api.presets import PRESETS, PresetBook, Sampling
from shared.catalog import Catalog
from shared.catalog_entry import PresetValues
from shared.compatibility import find_refusal
from shared.errors import ConfigurationError
from shared.vocab import Medium, Process, Sampler, Schedule

#: Guidance and steps for images and for audio, as the design has them.
TABLE = {
    "balanced": ((7.5, 25), (4, 25)),
    "creative": ((5, 40), (3, 40)),
    "precise": ((9, 40), (5, 40)),
    "fast": ((7, 12), (4, 12)),
    "reference": ((7.5, 50), (4, 50)),
}


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize(("medium", "column"), [(Medium.IMAGE, 0), (Medium.AUDIO, 1)])
def test_a_preset_says_what_the_design_says(
    catalog: Catalog, name: str, medium: Medium, column: int
) -> None:
    spec = replace(catalog.models["demo"], presets={}, medium=medium)
    preset = PresetBook.load().presets[name]
    sampling = preset.resolve(spec, PresetValues())
    assert (sampling.guidance, sampling.steps) == TABLE[name][column]
    assert sampling.sampler is (Sampler.DDPM if name == "reference" else Sampler.DPMPP_2M)
    assert sampling.schedule is Schedule.NATIVE
    assert sampling.guidance_rescale == 0


def test_an_explicit_value_beats_the_models_and_the_models_beats_the_presets(
    catalog: Catalog,
) -> None:
    own = {"balanced": PresetValues(guidance=3, steps=30)}
    spec = replace(catalog.models["demo"], presets=own)
    preset = PresetBook.load().presets["balanced"]
    sampling = preset.resolve(spec, PresetValues(steps=7, sampler=Sampler.EULER))
    assert (sampling.steps, sampling.guidance, sampling.sampler) == (7, 3, Sampler.EULER)
    assert sampling.schedule is Schedule.NATIVE


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("medium", Medium)
def test_a_distilled_model_is_sampled_in_its_own_way_whatever_the_preset(
    catalog: Catalog, name: str, medium: Medium
) -> None:
    spec = replace(catalog.models["demo"], presets={}, medium=medium, is_distilled=True)
    sampling = PresetBook.load().presets[name].resolve(spec, PresetValues())
    assert sampling == Sampling(sampler="lcm", schedule="native", steps=4, guidance=1)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize(
    ("process", "sampler"), [(Process.FLOW, "flow_euler"), (Process.EDM, "edm_dpmpp_2m")]
)
@pytest.mark.parametrize("is_distilled", [False, True])
def test_a_model_of_another_process_gets_a_sampler_of_that(
    catalog: Catalog, name: str, process: Process, sampler: str, is_distilled: bool
) -> None:
    changes = {"presets": {}, "process": process, "is_distilled": is_distilled}
    spec = replace(catalog.models["demo"], **changes)
    preset = PresetBook.load().presets[name]
    sampling = preset.resolve(spec, PresetValues())
    assert sampling.sampler == sampler
    assert find_refusal(sampling.sampler, sampling.schedule, spec) is None
    # Whoever names another one is refused, and not given what he did not ask for.
    assert preset.resolve(spec, PresetValues(sampler=Sampler.DDIM)).sampler is Sampler.DDIM


@pytest.mark.parametrize("wanted", ["fast", "fast@1"])
def test_a_name_with_or_without_its_version_finds_a_preset(wanted: str) -> None:
    preset = PresetBook.load().find(wanted)
    assert preset is not None
    assert preset.ref.name == "fast"


@pytest.mark.parametrize("wanted", ["", "quick", "fast@", "fast@2", "fast@01", "@1", "FAST"])
def test_another_name_or_version_finds_none(wanted: str) -> None:
    assert PresetBook.load().find(wanted) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("[balanced]", "[other]"), "balanced is missing"),
        (lambda text: text.replace("ddpm", "dddpm"), "reference.image.sampler"),
        (lambda text: text.replace("steps = 12", "setps = 12"), "fast.image"),
        (lambda text: "[", "presets"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, change, says: str) -> None:
    path = tmp_path / "presets.toml"
    path.write_text(change(PRESETS.read_text()))
    with pytest.raises(ConfigurationError, match=says):
        PresetBook.load(path)
