"""The objects of a bucket as files of a folder, named by their keys."""

import hashlib
import mimetypes
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shared.errors import ConfigurationError, NotFound
from shared.storage import ObjectStore

#: Objects that are on their way at once.
NUM_THREADS = 8
#: The type of what has no ending: uploads, which only workers read, and by what is in them.
UNKNOWN_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied."""

    objects: int
    num_bytes: int


def save_bucket(store: ObjectStore, folder: Path) -> Copied:
    """Copy all objects into a folder; one that is deleted meanwhile is left out.

    Raises:
        ConfigurationError: A key is no path of a file.
        StorageUnavailable: The store does not answer.
    """
    keys = [found.key for found in store.list_all("")]
    places = {key: place_of(folder, key) for key in keys}
    return _copy_all(partial(_save, store), places.items())


def load_bucket(store: ObjectStore, folder: Path) -> Copied:
    """Copy all files of a folder into a bucket; an object that is there already stays as it is.

    Raises:
        StorageUnavailable: The store does not answer, or has another object under one of the keys.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    places = {path.relative_to(folder).as_posix(): path for path in files}
    return _copy_all(partial(_load, store), places.items())


def _copy_all(
    copy: Callable[[str, Path], int | None], places: Iterable[tuple[str, Path]]
) -> Copied:
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        sizes = threads.map(lambda place: copy(*place), places)
        copied = [size for size in sizes if size is not None]
    return Copied(len(copied), sum(copied))


def _save(store: ObjectStore, key: str, path: Path) -> int | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        try:
            return store.get_file(key, file, max_bytes=sys.maxsize)
        except NotFound:
            pass
    path.unlink()
    return None


def _load(store: ObjectStore, key: str, path: Path) -> int:
    content_type = mimetypes.guess_type(key)[0] or UNKNOWN_TYPE
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        store.put_file(key, file, sha256=digest, content_type=content_type)
    return path.stat().st_size


def place_of(folder: Path, key: str) -> Path:
    """Return the file of a key.

    Raises:
        ConfigurationError: It would lie elsewhere, or is that of another key.
    """
    path = folder / key
    if Path(key).as_posix() != key or not path.resolve().is_relative_to(folder.resolve()):
        raise ConfigurationError(f"the key {key!r} is no path of a file; copy the bucket otherwise")
    return path
