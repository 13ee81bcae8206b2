"""Runs services of the compose file as processes of this machine.

Commands, variables, secrets and health checks are the file's; addresses and paths are this
machine's.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.deploy import compose
from tests.fixtures.stack import free_port, wait_until

#: Ports that each container has to itself.
OWN_PORTS = ("8000", "9464")


@dataclass
class Container:
    """A process and what its health check needs."""

    name: str
    process: "subprocess.Popen[bytes]"
    environment: Mapping[str, str]
    ports: Mapping[str, str]
    check: Sequence[str]
    #: Where it stands: it writes nothing there unless that is a volume of it.
    home: Path
    log: Path
    stop_grace_s: float

    def is_healthy(self) -> bool:
        """Run the health check once."""
        ended = subprocess.run(self.check, env=self.environment, capture_output=True, check=False)
        return ended.returncode == 0

    def wait_until_healthy(self) -> None:
        """Run the health check until it succeeds; a process that dies fails at once."""

        def is_decided() -> bool:
            return self.process.poll() is not None or self.is_healthy()

        wait_until(is_decided, timeout_s=120)
        assert self.process.poll() is None, f"{self.name} died:\n{self.log.read_text()}"

    def stop(self) -> int:
        """Stop it as Docker does, and return its exit code; it has its grace period and no more."""
        self.process.terminate()
        return self.process.wait(self.stop_grace_s)


@dataclass
class Host:
    """Where containers run: `places` says what addresses and paths of theirs are here."""

    folder: Path
    path: str
    places: Mapping[str, str]
    document: dict[str, Any] = field(default_factory=compose.read)
    containers: list[Container] = field(default_factory=list)

    def start(self, name: str, *more: str) -> Container:
        """Start a copy of a service; `more` are arguments that only a shared machine needs."""
        ports = {port: str(free_port()) for port in OWN_PORTS}
        environment = self.environment(name, ports)
        log = self.folder / f"{name}-{len(self.containers)}.log"
        home = self.folder / f"{name}-{len(self.containers)}"
        home.mkdir()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*self.command(name, ports), *more],
                env=environment,
                cwd=home,
                stdout=output,
                stderr=output,
            )
        service = self.document["services"][name]
        kind, *check = service["healthcheck"]["test"]
        check = self._translate(["sh", "-c", *check] if kind == "CMD-SHELL" else check, ports)
        grace_s = compose.seconds(service["stop_grace_period"])
        container = Container(name, process, environment, ports, check, home, log, grace_s)
        self.containers.append(container)
        return container

    def run(self, name: str, *arguments: str) -> str:
        """Run a service, or another command of its image, to its end; returns what it printed."""
        ports = {port: str(free_port()) for port in OWN_PORTS}
        ended = subprocess.run(
            arguments or self.command(name, ports),
            env=self.environment(name, ports),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def command(self, name: str, ports: Mapping[str, str]) -> list[str]:
        """Say what runs in a service: the entry point of its image, and its command."""
        service = self.document["services"][name]
        entry = ["latentq"] if name in compose.OURS else service.get("entrypoint", [])
        return self._translate([*entry, *service["command"]], ports)

    def environment(self, name: str, ports: Mapping[str, str]) -> dict[str, str]:
        """Say which variables a service has, and no others."""
        variables = self.document["services"][name].get("environment", {})
        values = self._translate(list(variables.values()), ports)
        own = {"PATH": self.path, "HOME": "/nonexistent", "TMPDIR": str(self.folder / "tmp")}
        return own | dict(zip(variables, values, strict=True))

    def kill(self) -> None:
        """End what still runs."""
        for container in self.containers:
            if container.process.poll() is None:
                container.process.kill()
                container.process.wait(10)

    def _translate(self, words: Sequence[str], ports: Mapping[str, str]) -> list[str]:
        return [self._place(ports.get(word, word)) for word in words]

    def _place(self, text: str) -> str:
        for there, here in self.places.items():
            text = text.replace(there, here)
        return text


def make_secrets(folder: Path, places: Mapping[str, str]) -> Path:
    """Make the secrets as an operator does, with addresses of this machine in them."""
    secrets = folder / "secrets"
    maker = compose.ROOT / "deploy" / "make-secrets.sh"
    subprocess.run(["sh", maker, secrets], check=True)
    for file in secrets.iterdir():
        text = file.read_text()
        for there, here in places.items():
            text = text.replace(there, here)
        file.chmod(0o600)
        file.write_text(text)
        file.chmod(0o444)
    return secrets


def programs(folder: Path, *others: Path) -> str:
    """Return a PATH with our programs, the servers', and a `valkey-cli`, which no package has."""
    client = folder / "bin" / "valkey-cli"
    client.parent.mkdir()
    client.write_text(
        f"#!{sys.executable}\n"
        "import os, redis\n"
        "url = open(f'{os.path.dirname(__file__)}/../secrets/redis_url').read().split('@')[1]\n"
        "password = os.environ['REDISCLI_AUTH']\n"
        "if redis.Redis.from_url(f'redis://:{password}@{url}').ping():\n"
        "    print('PONG')\n"
    )
    client.chmod(0o755)
    found = (Path(sys.executable).parent, client.parent, *others, "/usr/bin", "/bin")
    return os.pathsep.join(map(str, found))
