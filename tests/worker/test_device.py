import platform
from pathlib import Path

import pytest
import torch

from worker import device
from worker.device import describe_device


def test_a_gpu_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"cuda": "NVIDIA L4", "cuda:1": "NVIDIA A10"}
    monkeypatch.setattr(torch.cuda, "get_device_name", names.__getitem__)
    assert describe_device("cuda") == "cuda NVIDIA L4"
    assert describe_device("cuda:1") == "cuda NVIDIA A10"
    assert describe_device("mps") == f"mps {platform.machine()}"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor : 0\nmodel name\t: A CPU: the second\nmodel name\t: B\n", "A CPU: the second"),
        ("processor : 0\nCPU part : 0xd40\n", platform.machine()),
    ],
)
def test_a_cpu_is_known_by_what_linux_says_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(text)
    monkeypatch.setattr(device, "CPU_INFO", info)
    assert describe_device("cpu") == f"cpu {name}"


def test_a_cpu_is_known_where_there_is_no_linux(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "CPU_INFO", tmp_path / "missing")
    assert describe_device("cpu") == f"cpu {platform.machine()}"
