import json
import socket
from pathlib import Path

import pytest

from cli.standalone.state import PORT_NAMES, DataDir
from shared.errors import ConfigurationError


def test_secrets_and_ports_are_chosen_once(tmp_path: Path) -> None:
    with DataDir(tmp_path / "data") as first:
        ports, key = first.ports(), first.secret("api_key")
    with DataDir(tmp_path / "data") as second:
        assert (second.ports(), second.secret("api_key")) == (ports, key)
    assert len(set(ports.values())) == len(PORT_NAMES)
    assert oct((tmp_path / "data" / "state.json").stat().st_mode)[-3:] == "600"


def test_a_port_that_somebody_took_is_chosen_anew(tmp_path: Path) -> None:
    with DataDir(tmp_path / "data") as first:
        taken = first.ports()["valkey"]
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", taken))
        holder.listen()
        with DataDir(tmp_path / "data") as second:
            assert second.ports()["valkey"] != taken


def test_one_at_a_time(tmp_path: Path) -> None:
    with DataDir(tmp_path), pytest.raises(ConfigurationError, match="another latentq up"):
        DataDir(tmp_path)
    DataDir(tmp_path).__exit__(None, None, None)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"secrets": {}, "ports": {}}', "\0"])
def test_a_damaged_state_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(ConfigurationError, match="damaged"):
        DataDir(tmp_path)
    assert (tmp_path / "state.json").read_text() == content


def test_a_state_with_other_keys_beside_is_kept(tmp_path: Path) -> None:
    with DataDir(tmp_path) as data_dir:
        data_dir.ports()
    path = tmp_path / "state.json"
    state = json.loads(path.read_text())
    state["secrets"]["later"] = "secret"
    path.write_text(json.dumps(state))
    with DataDir(tmp_path) as data_dir:
        data_dir.ports()
        assert data_dir.secret("later") == "secret"
