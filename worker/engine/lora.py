"""LoRA: how an adapter takes part in what a model computes.

Beside a layer `y = W x` stands a branch of low rank: `y = W x + up(down(x)) * scale`. The model's
own weights are never written, so nothing has to be undone, and the operations are those of stock
diffusers with peft, in their order, so that the bits are the same.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest

from torch import Tensor, nn
from torch.nn import functional

from shared.errors import AdapterUnavailable

#: Parts of a model that adapters change, named as in their files.
DENOISER, TEXT_ENCODER, TEXT_ENCODER_2 = "unet", "text_encoder", "text_encoder_2"
#: Those that read the prompt, in the order in which a model has them.
TEXT_ENCODERS = (TEXT_ENCODER, TEXT_ENCODER_2)

Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Branch:
    """What an adapter adds to one layer."""

    down: Tensor  # [r, in], or [r, in, kh, kw] beside a convolution
    up: Tensor  # [out, r], or [out, r, 1, 1]
    alpha: float

    def scale(self, weight: float) -> float:
        """Return the factor of what is added, computed as peft does."""
        return weight * self.alpha / len(self.down)


@dataclass(frozen=True, slots=True, eq=False)
class ActiveAdapter:
    """An adapter that is loaded, and how much it changes."""

    id: str
    weight: float
    #: By part of the model and name of the layer.
    branches: Mapping[str, Mapping[str, Branch]]


@dataclass(frozen=True, slots=True)
class Attachment:
    """The layers of one part that adapters change, and how."""

    hooks: tuple[tuple[nn.Module, Hook], ...] = ()

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Have the adapters take part while it lasts, and not a moment longer.

        One thread uses a part at a time; whoever else does meanwhile would get them, too.
        """
        handles = []
        try:
            for module, hook in self.hooks:
                handles.append(module.register_forward_hook(hook))
            yield
        finally:
            for handle in handles:
                handle.remove()


#: What a job without adapters has.
NOTHING = Attachment()


def bind(model: nn.Module, part: str, adapters: Sequence[ActiveAdapter]) -> Attachment:
    """Find the layers of a part that adapters change; what they add is added in their order.

    Raises:
        AdapterUnavailable: One has a layer that the part has not, or has in another shape.
    """
    layers = dict(model.named_modules())
    added: dict[nn.Module, list[tuple[Branch, float]]] = defaultdict(list)
    for adapter in adapters:
        for name, branch in adapter.branches.get(part, {}).items():
            layer = layers.get(name)
            if layer is None or not _fits(layer, branch):
                raise AdapterUnavailable(
                    f"adapter {adapter.id} was made for another model: "
                    f"its {part} has no such layer {name}"
                )
            added[layer].append((branch, branch.scale(adapter.weight)))
    return Attachment(tuple((layer, _make_hook(branches)) for layer, branches in added.items()))


def bind_readers(
    text_encoders: Sequence[nn.Module], adapters: Sequence[ActiveAdapter]
) -> Attachment:
    """Find the layers of all text encoders of a model that adapters change.

    Raises:
        AdapterUnavailable: One has a layer that they have not, or is for one more of them.
    """
    both = zip_longest(TEXT_ENCODERS, text_encoders, fillvalue=nn.Module())
    return Attachment(
        tuple(hook for part, model in both for hook in bind(model, str(part), adapters).hooks)
    )


def _fits(layer: nn.Module, branch: Branch) -> bool:
    down, up = branch.down.shape, branch.up.shape
    match layer:
        case nn.Linear():
            return down[1:] == (layer.in_features,) and up == (layer.out_features, down[0])
        case nn.Conv2d():
            is_plain = layer.groups == 1 and layer.dilation == (1, 1)
            return (
                is_plain
                and down[1:] == (layer.in_channels, *layer.kernel_size)
                and up == (layer.out_channels, down[0], 1, 1)
            )
    return False


def _make_hook(branches: Sequence[tuple[Branch, float]]) -> Hook:
    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        dtype = output.dtype
        for branch, scale in branches:
            output = output + _run(layer, branch, inputs[0].to(branch.down.dtype)) * scale
        return output.to(dtype)

    return add


def _run(layer: nn.Module, branch: Branch, inputs: Tensor) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        low = functional.conv2d(inputs, branch.down, stride=layer.stride, padding=layer.padding)
        return functional.conv2d(low, branch.up)
    return functional.linear(functional.linear(inputs, branch.down), branch.up)
