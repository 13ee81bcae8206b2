"""What folders of each family say of their models, and which of them are refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.catalog import Catalog, ModelSpec
from shared.errors import ConfigurationError
from shared.vocab import GuidanceForm, PredictionType, Process

Load = Callable[..., ModelSpec]


@pytest.fixture
def load(tiny_catalog: Catalog, tmp_path: Path) -> Load:
    """Copy a tiny model without its weights, change its files, and read it with some lines."""

    def copy_and_load(
        model_id: str, lines: str = "", *, width: int = 32, **changes: dict[str, object]
    ) -> ModelSpec:
        folder = tmp_path / "net"
        shutil.copytree(
            tiny_catalog.models[model_id].path,
            folder,
            ignore=shutil.ignore_patterns("*.safetensors"),
        )
        for name, change in changes.items():
            (path,) = [*folder.glob(f"{name}.json"), *folder.glob(f"{name}/*config.json")][:1]
            path.write_text(json.dumps(json.loads(path.read_text()) | change))
        sizes = f"width = {width}\nheight = 32\nmax_width = 64\nmax_height = 64"
        table = f'[models.net]\npath = "net"\nrevision = "1"\n{sizes}\n{lines}\n'
        (tmp_path / "catalog.toml").write_text(f'default = "net"\n{table}')
        return Catalog.load(tmp_path / "catalog.toml").models["net"]

    return copy_and_load


@pytest.mark.parametrize(
    ("model_id", "family", "guidance", "max_tokens", "tokenizers", "size_step"),
    [
        ("told", "stable_diffusion", GuidanceForm.TOLD, 77, ("tokenizer",), 4),
        ("sdxl", "sdxl", GuidanceForm.CLASSIFIER_FREE, 77, ("tokenizer", "tokenizer_2"), 4),
        ("sdxl-told", "sdxl", GuidanceForm.TOLD, 77, ("tokenizer", "tokenizer_2"), 4),
        ("sd3", "sd3", GuidanceForm.CLASSIFIER_FREE, 256, ("tokenizer_3",), 8),
        (
            "sd3-without-t5",
            "sd3",
            GuidanceForm.CLASSIFIER_FREE,
            77,
            ("tokenizer", "tokenizer_2"),
            8,
        ),
        ("flux", "flux", GuidanceForm.TOLD, 512, ("tokenizer_2",), 8),
        ("flux-fast", "flux", GuidanceForm.NONE, 512, ("tokenizer_2",), 8),
    ],
)
def test_a_model_is_described_by_its_own_files(
    tiny_catalog: Catalog,
    model_id: str,
    family: str,
    guidance: GuidanceForm,
    max_tokens: int,
    tokenizers: tuple[str, ...],
    size_step: int,
) -> None:
    spec = tiny_catalog.models[model_id]
    assert (spec.family, spec.guidance, spec.max_tokens) == (family, guidance, max_tokens)
    assert (spec.tokenizers, spec.size_step, spec.latent_factor) == (tokenizers, size_step, 4)
    is_flow = family in ("sd3", "flux")
    assert spec.process is (Process.FLOW if is_flow else Process.DIFFUSION)
    assert (spec.prediction_type is PredictionType.FLOW) == is_flow
    assert spec.starts_from_pictures != is_flow
    assert spec.is_distilled == (model_id in ("told", "sdxl-told", "flux-fast"))
    assert spec.shifts_by_size == (model_id == "flux")
    assert spec.training.num_train_timesteps == 1000


def test_the_pipeline_of_consistency_models_is_served(load: Load) -> None:
    spec = load("told", model_index={"_class_name": "LatentConsistencyModelPipeline"})
    assert (spec.family, spec.guidance, spec.is_distilled) == (
        "stable_diffusion", GuidanceForm.TOLD, True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model_id", "changes", "complaint"),
    [
        (
            "sdxl",
            {"model_index": {"text_encoder": [None, None]}},
            "has no text_encoder; models with both text encoders are served",
        ),
        ("sdxl", {"vae": {"latents_mean": [0, 0, 0, 0]}}, "normalized channel by channel"),
        ("sdxl", {"unet": {"in_channels": 9}}, "takes 9 channels and latents have 4"),
        (
            "sdxl",
            {"scheduler": {"_class_name": "EDMEulerScheduler"}},
            "scheduler is one of edm models; a StableDiffusionXLPipeline is served with those of",
        ),
        (
            "sd3",
            {"scheduler": {"_class_name": "DDIMScheduler"}},
            "is one of diffusion models; a StableDiffusion3Pipeline is served with those of flow",
        ),
        ("sd3", {"transformer": {"in_channels": 16}}, "takes 16 channels and latents have 4"),
        (
            "sd3",
            {"transformer": {"pos_embed_max_size": 4}},
            "max_width 64 is above the 32 pixels that its denoiser has positions for; lower it",
        ),
        ("flux", {"transformer": {"in_channels": 64}}, "takes 16 channels and latents have 4"),
        ("flux", {"scheduler": {"_class_name": "LCMScheduler"}}, "is served with those of flow"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused_with_the_reason(
    load: Load, model_id: str, changes: dict[str, dict[str, object]], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        load(model_id, **changes)


@pytest.mark.parametrize(
    ("model_id", "option", "is_served"),
    [
        ("sdxl", 'attention = "eager"', True),
        ("sdxl", "channels_last = true", True),
        ("sdxl", "compile = true", False),
        ("sd3", 'dtype = "bfloat16"', True),
        ("sd3", 'attention = "sliced"', False),
        ("flux", "channels_last = true", False),
        ("flux", "compile = true", False),
    ],
)
def test_device_options_that_a_family_has_not_are_refused(
    load: Load, model_id: str, option: str, is_served: bool
) -> None:
    lines = f"[models.net.device]\n{option}"
    if is_served:
        assert load(model_id, lines).device_options.changed()
        return
    with pytest.raises(ConfigurationError, match=r"is not served with \w+ models, which have"):
        load(model_id, lines)


def test_a_size_that_is_no_multiple_of_a_patch_is_refused(load: Load) -> None:
    with pytest.raises(ConfigurationError, match=r"width 36 is no multiple of 8.*; 32 is"):
        load("flux", width=36)


def test_adapters_for_a_family_that_takes_none_are_refused(load: Load, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").touch()
    adapter = '[adapters.gray]\npath = "a.safetensors"\nrevision = "1"\nmodels = ["net"]'
    with pytest.raises(ConfigurationError, match="adapter gray: net takes none"):
        load("flux", adapter)
