"""A hub over HTTP that has one repository, and what is fetched of it."""

import hashlib
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from models import CATALOG
from shared.catalog import Catalog
from shared.errors import ConfigurationError, HubUnavailable
from shared.hub import Hub

REVISION = "0123456789abcdef0123456789abcdef01234567"
REPO = "somebody/small-model"
PARTS = ("text_encoder", "unet", "vae")


class FakeHub:
    """Speaks as much of the hub's protocol as a download needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.token: str | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                self.answer(with_body=True)

            def answer(self, *, with_body: bool) -> None:
                prefix = f"/{REPO}/resolve/{REVISION}/"
                file = outer.folder / self.path.removeprefix(prefix)
                wanted = None if outer.token is None else f"Bearer {outer.token}"
                if self.headers["Authorization"] != wanted:
                    self.send_response(401)
                    self.end_headers()
                    return
                self.send_response(200 if self.path.startswith(prefix) and file.is_file() else 404)
                self.send_header("X-Repo-Commit", REVISION)
                if not (self.path.startswith(prefix) and file.is_file()):
                    self.send_header("X-Error-Code", "EntryNotFound")
                    self.end_headers()
                    return
                data = file.read_bytes()
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if with_body:
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Be quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hub_server(tmp_path: Path) -> Iterator[FakeHub]:
    shutil.copytree(CATALOG.parent / "demo", tmp_path / "served")
    (tmp_path / "served" / "unet" / "code.py").write_text("raise SystemExit")
    (tmp_path / "served" / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickled")
    server = FakeHub(tmp_path / "served")
    yield server
    server.stop()


@pytest.fixture
def hub(hub_server: FakeHub, tmp_path: Path) -> Hub:
    return Hub(tmp_path / "kept", endpoint=hub_server.url)


def write_catalog(folder: Path, revision: str = REVISION) -> Path:
    path = folder / "catalog.toml"
    path.write_text(
        f'default = "net"\n[models.net]\nrepo = "{REPO}"\nrevision = "{revision}"\n'
        "max_width = 64\nmax_height = 64\n"
    )
    return path


def test_a_model_from_a_hub_is_described_by_its_small_files_and_needs_the_hub_no_more(
    hub: Hub, hub_server: FakeHub, tmp_path: Path
) -> None:
    spec = Catalog.load(write_catalog(tmp_path), hub=hub).models["net"]
    demo = Catalog.load(CATALOG).models["demo"]
    assert (spec.repo, spec.revision) == (REPO, REVISION)
    assert (spec.training, spec.max_tokens) == (demo.training, demo.max_tokens)
    assert spec.path == hub.folder_of(REPO, REVISION)
    assert not list(spec.path.rglob("*.safetensors"))
    assert hub_server.asked
    hub_server.stop()
    assert Catalog.load(write_catalog(tmp_path), hub=hub).models["net"] == spec


def test_weights_are_fetched_once_and_nothing_that_could_be_run(
    hub: Hub, hub_server: FakeHub
) -> None:
    folder = hub.fetch_description(REPO, REVISION)
    assert not hub.has_weights(REPO, REVISION)
    hub.fetch_weights(REPO, REVISION, PARTS)
    assert hub.has_weights(REPO, REVISION)
    for part in PARTS:
        (file,) = (folder / part).glob("*.safetensors")
        assert file.read_bytes() == (hub_server.folder / part / file.name).read_bytes()
    assert not [path for path in folder.rglob("*") if path.suffix in {".py", ".bin"}]
    num_asked = len(hub_server.asked)
    hub.fetch_weights(REPO, REVISION, PARTS)
    assert len(hub_server.asked) == num_asked


def test_of_another_family_what_its_index_names_is_fetched(
    hub: Hub, hub_server: FakeHub, tiny_catalog: Catalog, tmp_path: Path
) -> None:
    theirs = tiny_catalog.models["sd3-without-t5"]
    hub_server.folder = theirs.path
    spec = Catalog.load(write_catalog(tmp_path), hub=hub).models["net"]
    assert (spec.family, spec.tokenizers) == (theirs.family, theirs.tokenizers)
    folders = {path.parent.name for path in spec.path.rglob("*.json")} - {spec.path.name}
    kept = {path.name for path in theirs.path.iterdir() if path.is_dir()}
    assert folders - {"download", "huggingface", ".cache"} == kept
    assert not any("_3/" in path for path in hub_server.asked)


@pytest.mark.parametrize(
    "index",
    ["[]", "{", '{"../unet": ["diffusers", "UNet2DConditionModel"]}'],
    ids=["list", "broken", "elsewhere"],
)
def test_an_index_leads_nowhere_else(hub: Hub, hub_server: FakeHub, index: str) -> None:
    (hub_server.folder / "model_index.json").write_text(index)
    if "../" in index:
        hub.fetch_description(REPO, REVISION)
    else:
        with pytest.raises(HubUnavailable, match=r"its model_index.json is none of diffusers'"):
            hub.fetch_description(REPO, REVISION)
    assert {path.rpartition("/")[2] for path in hub_server.asked} == {"model_index.json"}


def test_weights_in_several_files_are_fetched_by_their_index(hub: Hub, hub_server: FakeHub) -> None:
    unet = hub_server.folder / "unet"
    whole = unet / "diffusion_pytorch_model.safetensors"
    whole.rename(unet / "diffusion_pytorch_model-00001-of-00001.safetensors")
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "diffusion_pytorch_model-00001-of-00001.safetensors"}}'
    )
    hub.fetch_weights(REPO, REVISION, ["unet"])
    folder = hub.folder_of(REPO, REVISION) / "unet"
    assert (folder / "diffusion_pytorch_model-00001-of-00001.safetensors").exists()


def test_offline_only_what_lies_in_the_folder_is_served(
    hub: Hub, hub_server: FakeHub, tmp_path: Path
) -> None:
    offline = Hub(hub.folder, endpoint=hub_server.url, is_offline=True)
    with pytest.raises(HubUnavailable, match=r"model_index.json is not in .* copy it there"):
        offline.fetch_description(REPO, REVISION)
    assert hub_server.asked == []
    # Copied by hand, without what this program notes down beside its own fetches.
    shutil.copytree(hub_server.folder, hub.folder_of(REPO, REVISION))
    offline.fetch_description(REPO, REVISION)
    offline.fetch_weights(REPO, REVISION, PARTS)
    assert hub_server.asked == []


def test_a_hub_that_refuses_is_told_from_a_model_that_is_not_there(
    hub: Hub, hub_server: FakeHub
) -> None:
    hub_server.token = "secret"
    with pytest.raises(HubUnavailable, match=r"the hub refused model_index.json \(401\)"):
        hub.fetch_description(REPO, REVISION)
    allowed = Hub(hub.folder, endpoint=hub_server.url, token="secret")
    allowed.fetch_description(REPO, REVISION)
    (hub_server.folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(HubUnavailable, match="has no vae/diffusion_pytorch_model"):
        allowed.fetch_weights(REPO, REVISION, PARTS)


@pytest.mark.slow  # the library tries for half a minute
def test_a_hub_that_is_away_is_told_of(tmp_path: Path) -> None:
    away = Hub(tmp_path / "elsewhere", endpoint="http://127.0.0.1:1")
    with pytest.raises(HubUnavailable, match="the hub cannot be reached"):
        away.fetch_description(REPO, REVISION)


def test_a_catalog_without_a_hub_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="model net: there is no folder for models"):
        Catalog.load(write_catalog(tmp_path))
