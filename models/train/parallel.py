"""Several processes with averaged gradients: on CPUs they scale where threads do not."""

import signal
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn


@dataclass(frozen=True, slots=True)
class Rank:
    """Which of how many processes this is."""

    index: int
    count: int

    @property
    def is_first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.index == 0

    def descend(
        self,
        loss: Tensor,
        parameters: Sequence[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        *,
        clip_norm: float,
    ) -> Tensor:
        """Take one step down a loss, with gradients averaged over the processes and clipped.

        Returns their norm before it was clipped, [].
        """
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.average_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
        optimizer.step()
        return norm

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace all gradients by their mean over the processes."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.count
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def run_parallel(work: Callable[[Rank], None], *, processes: int) -> None:
    """Run a function once in each of several processes, each with one thread."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (work, processes, Path(folder) / "rendezvous")
        spawn(_run, args=arguments, nprocs=processes)  # type: ignore[no-untyped-call]


def _run(index: int, work: Callable[[Rank], None], count: int, rendezvous: Path) -> None:
    # Of the first process' end torch tells the others by this signal, which shells let programs in
    # the background ignore.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=index, world_size=count
    )
    try:
        work(Rank(index, count))
    finally:
        dist.destroy_process_group()
