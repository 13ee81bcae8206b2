"""Pages of the documentation, and somebody who does what they say."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fixtures.stack import Stack

ROOT = Path(__file__).parents[2]
HOW_TO = ROOT / "docs" / "how-to"
OPERATIONS = ROOT / "docs" / "operations"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Languages that are drawn, not run.
DRAWN = {"mermaid"}
VENV = Path(sys.executable).parents[1]


@dataclass(frozen=True)
class Block:
    page: Path
    language: str
    text: str

    @property
    def is_make(self) -> bool:
        return self.text.startswith("make ")


def blocks_of(page: Path) -> list[Block]:
    return [Block(page, *match.groups()) for match in _BLOCK.finditer(page.read_text())]


class Reader:
    """Somebody who types what a page says, in a folder with nothing but the installed program."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        (folder / ".venv").symlink_to(VENV)

    def run(self, block: Block, *, timeout_s: float = 60) -> None:
        """Run a block that ends by itself; what it exports stays for the next one."""
        if block.language == "python":
            command = [sys.executable, "-c", block.text]
        else:
            command = ["bash", "-euc", f"{block.text}\nenv -0 > .environment"]
        ended = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert ended.returncode == 0, f"{block.text}\n{ended.stdout}\n{ended.stderr}"
        if block.language == "sh":
            entries = (self.folder / ".environment").read_text().split("\0")
            self.environment = dict(entry.split("=", 1) for entry in entries if entry)

    def stand_beside(self, stack: Stack) -> None:
        """Stand where a system has been started."""
        (self.folder / ".latentq").symlink_to(stack.data_dir)

    def follow(self, page: str, stack: Stack) -> None:
        """Run all that a how-to page says, beside a system that has been started."""
        self.stand_beside(stack)
        for block in blocks_of(HOW_TO / page):
            self.run(block)

    @contextmanager
    def running(
        self, text: str, *, stop: signal.Signals = signal.SIGINT
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """Run a block that goes on until it is told to stop."""
        process = subprocess.Popen(
            ["bash", "-euc", f"exec {text}"],
            cwd=self.folder,
            env=self.environment,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            process.send_signal(stop)
            process.wait(timeout=20)
