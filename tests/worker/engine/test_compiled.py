from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from models import CATALOG
from shared.catalog import Catalog
from worker.engine.families.compiled import CompiledDenoiser
from worker.engine.families.placement import Placement


class Doubling(nn.Module):
    """Doubles latents; a layer of it can be hooked."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()

    def forward(
        self, latents: Tensor, timesteps: Tensor, *, encoder_hidden_states: Tensor, **_: bool
    ) -> tuple[Tensor]:
        return (2 * self.layer(latents) + 0 * timesteps.sum() * encoder_hidden_states.sum(),)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses its own past
def test_what_adapters_add_is_never_left_out_by_a_program_made_without_them() -> None:
    catalog = Catalog.load(CATALOG)
    spec = replace(catalog.models[catalog.default], max_rows=1, exact_rows=2)
    compiled = CompiledDenoiser(Doubling(), spec, Placement(spec, torch.device("cpu")))
    side = spec.height // spec.latent_factor
    inputs = (
        torch.ones(1, 4, side, side),
        torch.zeros(1),
        {"encoder_hidden_states": torch.zeros(1, 2, 2)},
    )
    layer = compiled._denoiser.layer
    handle = layer.register_forward_hook(lambda _layer, _inputs, output: output + 1)
    # Whatever was compiled now would fail.
    with torch.compiler.set_stance("fail_on_recompile"):
        assert compiled(*inputs).unique().tolist() == [4.0]
    handle.remove()
    with torch.compiler.set_stance("force_eager"):
        assert compiled(*inputs).unique().tolist() == [2.0]
