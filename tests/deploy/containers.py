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

#: Makes all read-only but the folders that are given, and runs what stands behind `--`.
_READ_ONLY = """
until [ "$1" = -- ]; do mount --bind "$1" "$1"; shift; done
shift
mount -o remount,bind,ro /
cd "$PWD"
exec "$@"
"""


@dataclass(frozen=True)
class Place:
    """What a container has to itself on this machine."""

    #: Where it stands; a volume of it, if it has one.
    home: Path
    #: By the ports that it listens on, those that it has here.
    ports: Mapping[str, str]
    environment: dict[str, str]
    #: What its commands begin with.
    confine: Sequence[str]


@dataclass
class Container:
    """A process and what its health check needs."""

    name: str
    process: "subprocess.Popen[bytes]"
    place: Place
    check: Sequence[str]
    log: Path
    stop_grace_s: float

    def is_healthy(self) -> bool:
        """Run the health check once."""
        ended = subprocess.run(
            self.check, env=self.place.environment, capture_output=True, check=False
        )
        return ended.returncode == 0

    def wait_until_healthy(self) -> None:
        """Run the health check until it succeeds; a process that dies fails at once."""

        def is_decided() -> bool:
            return self.process.poll() is not None or self.is_healthy()

        try:
            wait_until(is_decided, timeout_s=120)
            assert self.process.poll() is None
        except (TimeoutError, AssertionError) as error:
            raise AssertionError(f"{self.name}:\n{self.log.read_text()}") from error

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
    _num_places: int = field(default=0, init=False)

    def start(self, name: str, *more: str) -> Container:
        """Start a copy of a service; `more` are arguments that only a shared machine needs."""
        place = self._make_place(name)
        log = place.home.with_suffix(".log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*place.confine, *self._command(name, place), *more],
                env=place.environment,
                cwd=place.home,
                stdout=output,
                stderr=output,
            )
        service = self.document["services"][name]
        kind, *check = service["healthcheck"]["test"]
        check = self._translate(["sh", "-c", *check] if kind == "CMD-SHELL" else check, place)
        grace_s = compose.seconds(service["stop_grace_period"])
        container = Container(name, process, place, [*place.confine, *check], log, grace_s)
        self.containers.append(container)
        return container

    def run(self, name: str, *arguments: str) -> str:
        """Run a service, or another command of its image, to its end; returns what it printed."""
        place = self._make_place(name)
        ended = subprocess.run(
            [*place.confine, *(arguments or self._command(name, place))],
            env=place.environment,
            cwd=place.home,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def options(self, name: str) -> list[str]:
        """Say which arguments a service has behind its program."""
        options: list[str] = self.document["services"][name]["command"][1:]
        return options

    def kill(self) -> None:
        """End what still runs."""
        for container in self.containers:
            if container.process.poll() is None:
                container.process.kill()
                container.process.wait(10)

    def _make_place(self, name: str) -> Place:
        service = self.document["services"][name]
        self._num_places += 1
        home = self.folder / f"{name}-{self._num_places}"
        has_volume = any(volume.endswith(":/data") for volume in service.get("volumes", []))
        user = service["user"].split(":")
        home.mkdir()
        place = Place(
            home=home,
            ports={port: str(free_port()) for port in OWN_PORTS},
            environment={},
            confine=confine(int(user[0]), int(user[1]), [home] if has_volume else []),
        )
        variables = service.get("environment", {})
        values = self._translate(list(variables.values()), place)
        own = {"PATH": self.path, "HOME": "/nonexistent"}
        place.environment.update(own | dict(zip(variables, values, strict=True)))
        return place

    def _command(self, name: str, place: Place) -> list[str]:
        service = self.document["services"][name]
        entry = ["latentq"] if name in compose.OURS else service.get("entrypoint", [])
        return self._translate([*entry, *service["command"]], place)

    def _translate(self, words: Sequence[str], place: Place) -> list[str]:
        return [self._replace(place.ports.get(word, word), place) for word in words]

    def _replace(self, text: str, place: Place) -> str:
        for there, here in (*self.places.items(), ("=/data", f"={place.home}")):
            text = text.replace(there, here)
        return text


def confine(user: int, group: int, volumes: Sequence[Path]) -> list[str]:
    """Say what makes a command run as Docker does: not as root, without capabilities, read-only.

    It may write to /tmp and its volumes. Where we are not root ourselves, it runs as it is; where
    other accounts cannot reach our Python, it keeps our account and nothing else.
    """
    if os.geteuid() or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        return []
    # By a shell: what setpriv starts itself is looked up with the rights that it had before.
    reaching = [*_confined(user, group, []), "sh", "-c", 'test -x "$0"', sys.executable]
    if subprocess.run(reaching, check=False).returncode:
        user, group = os.geteuid(), os.getegid()
    for folder in volumes:
        os.chown(folder, user, group)
    return _confined(user, group, volumes)


def _confined(user: int, group: int, volumes: Sequence[Path]) -> list[str]:
    account = [f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    rights = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    return [
        *("unshare", "--mount", "sh", "-euc", _READ_ONLY, "sh"),
        *("/tmp", *map(str, volumes), "--", "setpriv", *account, *rights),
    ]


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
    # Docker hands files over one by one, whoever may open their folder.
    secrets.chmod(0o755)
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
