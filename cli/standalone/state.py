"""What a data directory remembers: the secrets and ports that were chosen at its first start."""

import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Self

from shared.db.keys import mint_key
from shared.db.webhooks import mint_secret
from shared.errors import ConfigurationError

#: Below the range that Linux gives to outgoing connections, which could take a port meanwhile.
PORTS = range(20_000, 32_000)
PORT_NAMES = (
    "postgres",
    "valkey",
    "s3",
    "s3_grpc",
    "master",
    "master_grpc",
    "volume",
    "volume_grpc",
    "filer",
    "filer_grpc",
    "admin",
    "admin_grpc",
)


class DataDir:
    """A directory that one LatentQ at a time lives in; others may have it when it is left."""

    def __init__(self, path: Path) -> None:
        """Open the directory, made if it is missing, and keep others out.

        Raises:
            ConfigurationError: It cannot be used, or is in use.
        """
        self.path = path.resolve()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.logs.mkdir(exist_ok=True)
            self._lock = _lock(self.path / "lock")
        except OSError as error:
            raise ConfigurationError(
                f"the data directory {path} cannot be used: {error.strerror}"
            ) from error
        try:
            self._state = self._read_state()
        except BaseException:
            self._lock.close()
            raise

    @property
    def logs(self) -> Path:
        """Where each process writes its log."""
        return self.path / "logs"

    def secret(self, name: str) -> str:
        """Return a generated secret."""
        return str(self._state["secrets"][name])

    def ports(self) -> dict[str, int]:
        """Return the servers' ports; one that somebody else took is chosen anew."""
        ports: dict[str, int] = self._state["ports"]
        for name in PORT_NAMES:
            if name not in ports or not is_free(ports[name]):
                ports[name] = choose_port(taken=ports.values())
        self._write_state()
        return ports

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def _read_state(self) -> dict[str, Any]:
        path = self.path / "state.json"
        try:
            if not path.exists():
                fresh = {"secrets": _make_secrets(), "ports": {}}
                write_private(path, json.dumps(fresh, indent=2))
            state: dict[str, Any] = json.loads(path.read_text())
            if not state["secrets"].keys() >= _make_secrets().keys():
                raise KeyError("secrets")
            _ = state["ports"].items()
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be used: {error.strerror}") from error
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ConfigurationError(
                f"{path} is damaged; restore it, or start with another data directory"
            ) from error
        return state

    def _write_state(self) -> None:
        write_private(self.path / "state.json", json.dumps(self._state, indent=2))


def write_private(path: Path, text: str) -> None:
    """Replace a file at once, readable by its owner only."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether nobody listens on a port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As a server does: a port with only dying connections is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def choose_port(*, taken: Iterable[int] = ()) -> int:
    """Choose a free port at random.

    Raises:
        ConfigurationError: None was found.
    """
    avoided = set(taken)
    for _ in range(200):
        port = secrets.choice(PORTS)
        if port not in avoided and is_free(port):
            return port
    raise ConfigurationError(f"no free port found between {PORTS.start} and {PORTS.stop}")


def _make_secrets() -> dict[str, str]:
    return {
        "postgres_password": secrets.token_hex(24),
        "valkey_password": secrets.token_hex(24),
        "s3_access_key": secrets.token_hex(10),
        "s3_secret_key": secrets.token_hex(24),
        "seaweedfs_admin_password": secrets.token_hex(24),
        "api_key": mint_key(),
        "webhook_secret": mint_secret(),
    }


def _lock(path: Path) -> IO[str]:
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise ConfigurationError(f"another latentq up uses {path.parent}") from error
    return file
