"""Models from a hub: which files of a repository are needed, and where they lie on this machine.

JSON, word lists and safetensors only, of one commit: what a repository holds besides, code or
pickled weights, is never asked for.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shared.errors import HubUnavailable

#: Names the parts of a model, and the class of each.
_INDEX = "model_index.json"
#: A tokenizer has the first of these, or the two others; newer ones may have all.
_WORD_LISTS = ("tokenizer.json", "vocab.json", "merges.txt", "special_tokens_map.json")
#: Parts that no family of ours has.
_UNUSED = frozenset({"safety_checker", "feature_extractor", "image_encoder"})
#: What parts are called: a name is part of a path.
_PART = re.compile(r"[a-z0-9_]+")
#: Where weights lie: in one file, or in several that an index names.
WEIGHT_STEMS = ("diffusion_pytorch_model", "model")
#: Lies beside files that are all there, so that the hub is not asked for what it does not have.
_ALL_HERE = ".latentq-{}"


@dataclass(frozen=True)
class Hub:
    """A folder of files from a hub, and the hub that those which are missing come from."""

    folder: Path
    #: The library's own hub if it is left out.
    endpoint: str | None = None
    #: For repositories that are not for everybody.
    token: str | None = None
    #: Whether the hub is never asked: what is not in the folder is not to be had.
    is_offline: bool = False

    def folder_of(self, repo: str, revision: str) -> Path:
        """Return where a repository's files of a commit lie, or will."""
        return self.folder / repo / revision

    def fetch_description(self, repo: str, revision: str) -> Path:
        """Have the small files here that say what a model is; returns their folder.

        Raises:
            HubUnavailable: One is not here and cannot be fetched.
        """
        checkout = _Checkout(self, repo, revision)
        if not checkout.is_marked("description"):
            for part, cls in checkout.list_parts():
                checkout.describe(part, cls)
            checkout.mark("description")
        return checkout.folder

    def has_weights(self, repo: str, revision: str) -> bool:
        """Tell whether a model's weights are all here."""
        return _Checkout(self, repo, revision).is_marked("weights")

    def fetch_weights(self, repo: str, revision: str, parts: Iterable[str]) -> None:
        """Have the weights of a model's parts here; this may take long.

        Raises:
            HubUnavailable: Some are not here and cannot be fetched.
        """
        checkout = _Checkout(self, repo, revision)
        if not checkout.is_marked("weights"):
            for part in parts:
                checkout.fetch_weights(part)
            checkout.mark("weights")


class _Checkout:
    """The files of one commit of a repository."""

    def __init__(self, hub: Hub, repo: str, revision: str) -> None:
        self._hub = hub
        self._repo = repo
        self._revision = revision
        self.folder = hub.folder_of(repo, revision)

    def is_marked(self, what: str) -> bool:
        return (self.folder / _ALL_HERE.format(what)).exists()

    def mark(self, what: str) -> None:
        # A folder that was copied here by hand may be nobody's to write to.
        if not self._hub.is_offline:
            (self.folder / _ALL_HERE.format(what)).touch()

    def require(self, name: str) -> Path:
        if not self.fetch(name):
            if self._hub.is_offline:
                raise HubUnavailable(
                    f"{self._name}: {name} is not in {self._hub.folder} and the hub is not asked; "
                    "copy it there, or take LATENTQ_OFFLINE away"
                )
            raise HubUnavailable(f"{self._name} has no {name}; a diffusers repository has")
        return self.folder / name

    def list_parts(self) -> list[tuple[str, str]]:
        """List the parts that we use, with their classes; one that is left out has none."""
        parts = []
        try:
            for part, value in json.loads(self.require(_INDEX).read_text()).items():
                match value:
                    case [_, str(cls)] if _PART.fullmatch(part) and part not in _UNUSED:
                        parts.append((part, cls))
        except (ValueError, AttributeError) as error:
            raise HubUnavailable(f"{self._name}: its {_INDEX} is none of diffusers'") from error
        return parts

    def describe(self, part: str, cls: str) -> None:
        """Fetch what says what a part of a class is."""
        if "Scheduler" in cls:
            self.require(f"{part}/scheduler_config.json")
        elif "Tokenizer" in cls:
            self.require(f"{part}/tokenizer_config.json")
            for name in _WORD_LISTS:
                self.fetch(f"{part}/{name}")
        else:
            self.require(f"{part}/config.json")

    def fetch_weights(self, part: str) -> None:
        """Fetch a part's weights, in one file or in several."""
        for stem in WEIGHT_STEMS:
            if self.fetch(f"{part}/{stem}.safetensors"):
                return
            index = f"{part}/{stem}.safetensors.index.json"
            if self.fetch(index):
                shards = json.loads((self.folder / index).read_text())["weight_map"].values()
                for shard in sorted(set(shards)):
                    self.require(f"{part}/{shard}")
                return
        self.require(f"{part}/{WEIGHT_STEMS[0]}.safetensors")

    def fetch(self, name: str) -> bool:
        """Have a file here; tells whether it is. A file is never here in part.

        Raises:
            HubUnavailable: The hub cannot be reached, or does not let us in.
        """
        if (self.folder / name).is_file():
            return True
        if self._hub.is_offline:
            return False
        # Slow to import, and needed by few.
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
        try:
            hf_hub_download(
                self._repo,
                name,
                revision=self._revision,
                local_dir=self.folder,
                endpoint=self._hub.endpoint,
                token=self._hub.token or False,
            )
        except RemoteEntryNotFoundError:
            return False
        except HfHubHTTPError as error:
            status = error.response.status_code
            raise HubUnavailable(f"{self._name}: the hub refused {name} ({status})") from error
        except OSError as error:
            raise HubUnavailable(
                f"{self._name}: {name} is not in {self._hub.folder} and the hub cannot be reached; "
                "fetch it where it can, and copy the folder"
            ) from error
        return True

    @property
    def _name(self) -> str:
        return f"{self._repo} at {self._revision}"
