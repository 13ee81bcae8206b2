import json
import shutil
from pathlib import Path

import pytest

from models import CATALOG
from shared.catalog import Catalog
from shared.errors import ConfigurationError
from shared.vocab import PredictionType


@pytest.fixture
def catalog_file(tmp_path: Path) -> Path:
    """A catalog of one model, whose files may be spoilt."""
    for part in ("model_index.json", "scheduler", "unet/config.json", "vae/config.json"):
        source, target = CATALOG.parent / "demo" / part, tmp_path / "net" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    shutil.copytree(CATALOG.parent / "demo" / "text_encoder", tmp_path / "net" / "text_encoder")
    entry = '[models.net]\npath = "net"\nrevision = "1"\nmax_width = 64\nmax_height = 64\n'
    (tmp_path / "catalog.toml").write_text(f'default = "net"\n{entry}')
    return tmp_path / "catalog.toml"


def change_scheduler(catalog_file: Path, **changes: object) -> None:
    path = catalog_file.parent / "net" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_demo_model_is_described_by_its_own_files() -> None:
    demo = Catalog.load(CATALOG).models["demo"]
    assert (demo.width, demo.height, demo.latent_factor) == (64, 64, 4)
    assert demo.prediction_type is PredictionType.V_PREDICTION
    assert demo.training.num_train_timesteps == 1000
    assert demo.max_tokens == 24
    assert demo.presets["balanced"].guidance == 2


def test_a_copied_model_reads_the_same(catalog_file: Path) -> None:
    copied = Catalog.load(catalog_file).models["net"]
    demo = Catalog.load(CATALOG).models["demo"]
    assert copied.training == demo.training
    assert copied.family == demo.family


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_a_model_rescaled_to_zero_signal_is_served(
    catalog_file: Path, prediction_type: str
) -> None:
    change_scheduler(catalog_file, rescale_betas_zero_snr=True, prediction_type=prediction_type)
    spec = Catalog.load(catalog_file).models["net"]
    assert spec.training.zero_terminal_snr
    assert spec.training.sigma_max == pytest.approx(4096, rel=1e-6)


@pytest.mark.parametrize("scheduler", ["LCMScheduler", "TCDScheduler"])
def test_a_model_whose_scheduler_is_a_consistency_one_is_distilled(
    catalog_file: Path, scheduler: str
) -> None:
    assert not Catalog.load(catalog_file).models["net"].is_distilled
    change_scheduler(catalog_file, _class_name=scheduler, original_inference_steps=40)
    spec = Catalog.load(catalog_file).models["net"]
    assert spec.is_distilled
    assert spec.teacher_steps == 40


def test_a_catalog_entry_may_say_that_its_model_is_distilled(catalog_file: Path) -> None:
    catalog_file.write_text(catalog_file.read_text() + "distilled = true\n")
    spec = Catalog.load(catalog_file).models["net"]
    assert spec.is_distilled
    assert spec.teacher_steps == 50


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "default"),
        ("default = ", "catalog"),
        ('default = "x"\n[models]\n', "default 'x' is not among"),
        ('default = "net"\nmodels = {net = {path = "net", bogus = 1}}', "bogus|revision"),
        (
            'default = "Net"\n[models.Net]\npath = "net"\nrevision = "1"\n'
            "max_width = 64\nmax_height = 64\n",
            "model id 'Net'",
        ),
    ],
)
def test_a_catalog_that_cannot_be_used_says_why(
    catalog_file: Path, text: str, complaint: str
) -> None:
    catalog_file.write_text(text)
    with pytest.raises(ConfigurationError, match=complaint):
        Catalog.load(catalog_file)


@pytest.mark.parametrize(
    ("file", "changes", "complaint"),
    [
        (
            "model_index.json",
            {"_class_name": "KolorsPipeline"},
            "no family of ours runs a KolorsPipeline",
        ),
        (
            "scheduler/scheduler_config.json",
            {"rescale_betas_zero_snr": True, "prediction_type": "epsilon"},
            "the noise says nothing",
        ),
        (
            "scheduler/scheduler_config.json",
            {"rescale_betas_zero_snr": True, "num_train_timesteps": 4000},
            "less signal than",
        ),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "FlowMatchEulerDiscreteScheduler"},
            "one of flow models",
        ),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "EDMDPMSolverMultistepScheduler"},
            "one of edm models",
        ),
        ("scheduler/scheduler_config.json", {"beta_schedule": "odd"}, "training schedule 'odd'"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "flow"),
        ("unet/config.json", {"in_channels": 9}, "takes 9 channels and latents have 4"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused_with_the_reason(
    catalog_file: Path, file: str, changes: dict[str, object], complaint: str
) -> None:
    path = catalog_file.parent / "net" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ConfigurationError, match=complaint):
        Catalog.load(catalog_file)


def test_a_missing_folder_is_named(catalog_file: Path) -> None:
    shutil.rmtree(catalog_file.parent / "net")
    with pytest.raises(ConfigurationError, match="model net in"):
        Catalog.load(catalog_file)


def test_device_options_are_off_until_an_entry_sets_them(catalog_file: Path) -> None:
    assert Catalog.load(catalog_file).models["net"].device_options.changed() == {}
    with catalog_file.open("a") as file:
        file.write('[models.net.device]\ndtype = "bfloat16"\ncompile = true\n')
    options = Catalog.load(catalog_file).models["net"].device_options
    assert options.changed() == {"dtype": "bfloat16", "compile": True}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('dtype = "int8"', "models.net.device.dtype: .*'float32', 'bfloat16' or 'float16'"),
        ('attention = "flash"', "models.net.device.attention: .*'fused', 'eager' or 'sliced'"),
        ("compile = 1", "models.net.device.compile"),
        ("offload = true", "models.net.device.offload: there is no such field"),
        ('feature_cache = "mag"', "feature_cache is not served: .*each is at a step of its own"),
        ('guider = "slg"', "guider is not served: .*layers that all jobs share"),
    ],
)
def test_a_device_option_that_is_not_served_is_refused(
    catalog_file: Path, line: str, reason: str
) -> None:
    with catalog_file.open("a") as file:
        file.write(f"[models.net.device]\n{line}\n")
    with pytest.raises(ConfigurationError, match=reason):
        Catalog.load(catalog_file)
