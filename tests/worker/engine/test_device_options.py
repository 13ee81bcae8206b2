"""The options of a catalog entry, on the CPU: what they change, and that batching still holds."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from models import CATALOG
from shared.catalog import Catalog
from shared.device_options import DeviceOptions
from shared.errors import ModelUnavailable
from tests.worker.engine.conftest import request, run_alone
from tests.worker.engine.faults import files_of, run_together
from worker.engine import JobResult, ModelCache
from worker.engine.conditioning import repeat
from worker.engine.families.placement import Placement, choose_dtype

#: Levels of 255 that a picture may differ by on average from the one without the option: rounding
#: of the last bits, and of all but 8 or 11 bits of each number.
SAME, HALF = 0.1, 6.0
OPTIONS: list[tuple[dict[str, Any], float]] = [
    ({"channels_last": True}, SAME),
    ({"attention": "eager"}, SAME),
    ({"attention": "sliced"}, SAME),
    ({"dtype": "bfloat16"}, HALF),
    # CPUs take their time for it.
    ({"dtype": "float16"}, HALF),
]
ALL_TOGETHER = {"dtype": "bfloat16", "channels_last": True, "attention": "eager"}


def with_options(catalog: Path = CATALOG, **options: Any) -> ModelCache:
    """Load a catalog's models with options of their device; on the CPU."""
    loaded = Catalog.load(catalog)
    specs = {
        model_id: dataclasses.replace(spec, device_options=DeviceOptions.model_validate(options))
        for model_id, spec in loaded.models.items()
    }
    return ModelCache(dataclasses.replace(loaded, models=specs), "cpu")


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [*(pytest.param(*one, marks=pytest.mark.slow) for one in OPTIONS), (ALL_TOGETHER, HALF)],
    ids=str,
)
def test_an_option_changes_the_last_bits_of_a_picture_and_company_those_of_no_exact_one(
    models: ModelCache, options: dict[str, Any], tolerance: float
) -> None:
    special = with_options(**options)
    mine = request(sampler="ddpm", steps=4, determinism="exact")
    alone = run_alone(special, mine)
    plain = run_alone(models, mine).outputs[0].pixels
    assert np.abs(alone.outputs[0].pixels.astype(int) - plain).mean() <= tolerance
    outcome, *_ = run_together(special, [mine, request(steps=4), request(steps=3, guidance=1)])
    assert isinstance(outcome, JobResult)
    assert outcome.mean_rows > alone.mean_rows
    assert files_of(outcome, mine) == files_of(alone, mine)
    # The record of a job says with what it was made.
    assert outcome.device_options == options


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"channels_last": True}], ids=str)
def test_what_an_option_changes_are_bits(models: ModelCache, options: dict[str, Any]) -> None:
    family, plain = with_options(**options).load("demo"), models.get("demo")
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        latents = torch.cat([plain.latents(request(), generator)] * 2)
        prompts = repeat(plain.encode("a red star"), 2)
        expected = plain.predict(latents, torch.tensor([300.0, 900.0]), prompts)
        found = family.predict(
            latents, torch.tensor([300.0, 900.0]), repeat(family.encode("a red star"), 2)
        )
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert not torch.equal(found, expected)
    assert torch.allclose(found, expected, atol=0.05)


def test_nothing_is_recorded_of_a_model_without_options(models: ModelCache) -> None:
    assert run_alone(models, request(steps=1)).device_options == {}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_picture_is_started_from_whatever_the_model_computes_in(dtype: str) -> None:
    special = with_options(dtype=dtype)
    family = special.load("demo")
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        encoded = family.picture_codec.encode_image(np.zeros((64, 64, 3), np.uint8))
        latents = family.picture_codec.sample(encoded, generator)
    assert latents.dtype == torch.float32
    assert torch.isfinite(latents).all()


def test_a_device_that_cannot_do_it_is_refused_with_what_works() -> None:
    spec = Catalog.load(CATALOG).models["demo"]
    special = dataclasses.replace(spec, device_options=DeviceOptions(dtype="bfloat16"))
    with pytest.raises(ModelUnavailable, match=r'does not compute in bfloat16.*"float32"'):
        Placement(special, torch.device("meta"))  # it computes nothing at all


@pytest.mark.parametrize(
    ("dtype", "force_upcast", "expected"),
    [
        ("float16", True, torch.float32),
        ("float16", False, torch.float16),
        ("bfloat16", True, torch.bfloat16),
        ("float32", True, torch.float32),
    ],
)
def test_a_decoder_that_leaves_the_range_of_float16_does_not_compute_in_it(
    tmp_path: Path, dtype: str, force_upcast: bool, expected: torch.dtype
) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps({"force_upcast": force_upcast}))
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    spec = Catalog.load(CATALOG).models["demo"]
    special = dataclasses.replace(
        spec, path=tmp_path, device_options=DeviceOptions.model_validate({"dtype": dtype})
    )
    assert choose_dtype(special, "vae") is expected
    assert choose_dtype(special, "unet") is getattr(torch, dtype)


@pytest.fixture
def small_catalog(tmp_path: Path) -> Path:
    """The demo model with the smallest denoiser of its kind, which compiles in seconds."""
    model = tmp_path / "small"
    shutil.copytree(
        CATALOG.parent / "demo", model, ignore=shutil.ignore_patterns("unet", "training")
    )
    config = json.loads((CATALOG.parent / "demo" / "unet" / "config.json").read_text())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet: Any = UNet2DConditionModel(
            sample_size=config["sample_size"],
            block_out_channels=(8,),
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
            layers_per_block=1,
            norm_num_groups=2,
            attention_head_dim=2,
            cross_attention_dim=config["cross_attention_dim"],
        )
    unet.save_pretrained(model / "unet", safe_serialization=True)
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(
        'default = "small"\n[models.small]\npath = "small"\nrevision = "1"\n'
        "max_width = 128\nmax_height = 128\nmax_rows = 2\nexact_rows = 2\n"
    )
    return catalog


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses its own past
def test_rows_are_filled_up_to_their_bucket_and_other_sizes_left_as_they_are(
    small_catalog: Path,
) -> None:
    text = small_catalog.read_text()
    small_catalog.write_text(text.replace("max_rows = 2", "max_rows = 8").replace("= 2\n", "= 3\n"))
    plain = with_options(small_catalog).get("small")
    with torch.compiler.set_stance("force_eager"), torch.inference_mode():
        family = with_options(small_catalog, compile=True).get("small")
        seen: list[int] = []
        family._unet.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        generator = torch.Generator().manual_seed(0)
        for rows, width, bucket in ((3, 64, 3), (5, 64, 8), (8, 64, 8), (9, 64, 9), (3, 128, 3)):
            latents = torch.randn(rows, 4, 16, width // 4, generator=generator)
            timesteps = torch.linspace(1, 999, rows)
            prompts = repeat(family.encode("a red star"), rows)
            found = family.predict(latents, timesteps, prompts)
            assert seen.pop() == bucket
            expected = plain.predict(latents, timesteps, prompts)
            assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forwards_are_compiled_when_the_model_is_loaded_and_never_at_work(
    small_catalog: Path,
) -> None:
    compiled = with_options(small_catalog, compile=True)
    compiled.get("small")
    jobs = [
        request(model="small", steps=3, guidance=1, determinism="exact"),
        request(model="small", steps=3),
        request(model="small", steps=2, width=128),  # of a size that is run as it is
        request(model="small", steps=2, guidance=1, seed=9),
    ]
    plain = run_alone(with_options(small_catalog), jobs[0]).outputs[0].pixels
    with torch.compiler.set_stance("fail_on_recompile"):
        alone = run_alone(compiled, jobs[0])
        outcomes = run_together(compiled, jobs)
    assert files_of(outcomes[0], jobs[0]) == files_of(alone, jobs[0])
    assert np.abs(alone.outputs[0].pixels.astype(int) - plain).mean() <= SAME
    for outcome in outcomes:
        assert isinstance(outcome, JobResult)
        assert outcome.device_options == {"compile": True}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses its own past
def test_where_torch_cannot_compile_the_model_is_refused(
    small_catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No program of that name: as on a machine without a compiler.
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-compiler-here",))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    with pytest.raises(ModelUnavailable, match="does not compile it for cpu here"):
        with_options(small_catalog, compile=True).get("small")
