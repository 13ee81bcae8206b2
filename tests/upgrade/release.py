"""Versions of LatentQ out of git, and the processes of several of them on the same servers."""

import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from cli.standalone.child import Child, ChildSpec, stop_all
from cli.standalone.state import choose_port

ROOT = Path(__file__).parents[2]
#: What stands for the previous release: the last commit of main before migration 0017. The rules of
#: docs/operations/upgrades.md hold from it on: move it forward, never back.
PREVIOUS = "41e2864d3524843330d7ba8272f4791bdaa7630e"
HOST = "127.0.0.1"
#: How long a process may take to serve, and to end, in seconds, however busy the machine is.
READY_TIMEOUT_S = 400.0
STOP_TIMEOUT_S = 180.0
#: What a worker and a dispatcher log when they serve.
_READY = {"worker": " ready.", "dispatcher": "dispatcher_started"}


@dataclass(frozen=True, slots=True)
class Release:
    """The code of a version."""

    name: str
    folder: Path

    def variables(self) -> dict[str, str]:
        """Return the variables that make a Python process run this code and no other."""
        return {"PYTHONPATH": f"{self.folder}{os.pathsep}{self.folder / 'client' / 'src'}"}

    def command(self, *arguments: str) -> list[str]:
        """Return what `latentq` with these arguments is in this version."""
        return [sys.executable, "-P", "-m", "cli.main", *arguments]


CURRENT = Release("current", ROOT)


def is_known(commit: str) -> bool:
    """Tell whether a commit is in this clone."""
    command = ["git", "-C", ROOT, "cat-file", "-e", f"{commit}^{{commit}}"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def check_out(commit: str, folder: Path) -> Release:
    """Write the files of a commit into a folder; git itself notices nothing of it."""
    folder.mkdir()
    archive = folder.with_suffix(".tar")
    subprocess.run(["git", "-C", ROOT, "archive", f"--output={archive}", commit], check=True)
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    archive.unlink()
    return Release(commit[:7], folder)


class Fleet:
    """The processes of one LatentQ, each of a release of its own."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.logs = folder
        folder.mkdir()
        self._variables = {"PATH": os.environ["PATH"], **variables}
        self._children: list[Child] = []
        #: The processes that were started last, by their names.
        self.newest: dict[str, Child] = {}
        #: Where the newest API is.
        self.api_url = ""

    def run(self, release: Release, *arguments: str) -> str:
        """Run a command of a release that ends by itself; returns what it printed."""
        ended = subprocess.run(
            release.command(*arguments),
            cwd=self.logs,
            env={**self._variables, **release.variables()},
            capture_output=True,
            text=True,
            timeout=READY_TIMEOUT_S,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def start(self, name: str, release: Release) -> None:
        """Start a process and wait until it serves; one of the same name goes on beside it."""
        log = self.logs / f"{len(self._children):02}-{name}-{release.name}.log"
        kind = name.partition("-")[0]
        arguments = ["--name", name] if kind == "worker" else []
        is_ready = partial(_has_logged, log, _READY.get(kind, ""))
        if kind == "api":
            port = choose_port()
            self.api_url = f"http://{HOST}:{port}"
            arguments = ["--host", HOST, "--port", str(port)]
            is_ready = partial(_answers, f"{self.api_url}/readyz")
        child = Child(
            ChildSpec(
                name=f"{name} of {release.name}",
                command=release.command(kind, *arguments),
                environment={**self._variables, **release.variables()},
                log_path=log,
                is_ready=is_ready,
                ready_timeout_s=READY_TIMEOUT_S,
            )
        )
        child.start()
        self._children.append(child)
        self.newest[name] = child
        child.wait_until_ready(threading.Event())

    def stop(self, child: Child) -> None:
        """Ask a process to end, as a deploy does, and hold it to doing so in good order."""
        child.signal_stop()
        assert child.wait(STOP_TIMEOUT_S), f"{child.spec.name} does not end"
        # The server of the API passes the signal on to itself when all is done.
        in_order = {0, -child.spec.stop_signal}
        assert child.exit_code in in_order, f"{child.spec.name} ended with {child.exit_code}"

    def close(self) -> None:
        """End everything."""
        stop_all(self._children, timeout_s=STOP_TIMEOUT_S)

    def complaints(self) -> list[str]:
        """Return every line of a log that tells of an error, whoever wrote it."""
        signs = ('"level": "error"', '"level":"error"', "Traceback")
        return [
            f"{path.name}: {line}"
            for path in sorted(self.logs.glob("*.log"))
            for line in path.read_text().splitlines()
            if any(sign in line for sign in signs)
        ]


def _has_logged(path: Path, text: str) -> bool:
    return path.exists() and text in path.read_text()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
