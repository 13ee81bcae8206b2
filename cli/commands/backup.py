"""`latentq backup` and `restore`: all that PostgreSQL and the bucket hold, as a folder."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import JsonOption
from cli.database import open_database, read_settings
from latentq_client import ServiceUnreachable
from shared.errors import ConfigurationError, StorageUnavailable
from shared.settings import BackupSettings

if TYPE_CHECKING:
    from shared.storage import ObjectStore

DUMP = "database.dump"
OBJECTS = "objects"
#: Written last: a folder without it is no backup.
SUMMARY = "backup.json"
#: What `latentq up` tells of its stores.
_NEARBY = (
    "database_url", "s3_endpoint", "s3_region", "s3_bucket", "s3_access_key", "s3_secret_key",
)  # fmt: skip

FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the backup is.")]


def backup(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Copy the database, then the bucket, into a new folder; the service may run meanwhile.

    The stores are those of the LATENTQ_... variables, else of the `latentq up` next to us. The
    folder holds prompts and signing secrets.
    """
    from cli.bucket_copy import save_bucket
    from cli.database_dump import dump_database

    settings = read_settings(BackupSettings, _NEARBY)
    made_at = datetime.now(UTC)
    try:
        folder.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be made: {error.strerror}") from error
    objects = folder / OBJECTS
    objects.mkdir()
    # What the rows name is in the store before they do: the bucket comes second.
    dump_database(settings.database_url.get_secret_value(), folder / DUMP)
    with _reaching_the_store():
        copied = save_bucket(_open_store(settings), objects)
    summary = {
        "made_at": made_at.isoformat(),
        "objects": copied.objects,
        "object_bytes": copied.num_bytes,
        "database_bytes": (folder / DUMP).stat().st_size,
    }
    (folder / SUMMARY).write_text(json.dumps(summary, indent=2))
    _print(summary, as_json=as_json)


def restore(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Fill an empty database and a bucket from a backup, before any process is started on them.

    Brings the database to this version, and leaves the service read-only: look, and then open it
    with `latentq read-only off`. After a failure the same command goes on.
    """
    from cli.bucket_copy import load_bucket
    from cli.database_dump import load_database
    from shared.db.migrate import upgrade
    from shared.db.read_only import ReadOnlyRepository
    from shared.db.restoration import RestorationRepository

    settings = read_settings(BackupSettings, _NEARBY)
    made_at = _read_summary(folder)["made_at"]
    url = settings.database_url.get_secret_value()
    with open_database(url) as database:
        restoration = RestorationRepository(database)
        if not restoration.is_empty():
            raise ConfigurationError("the database has tables: restore into an empty one")
        with _reaching_the_store():
            copied = load_bucket(_open_store(settings), folder / OBJECTS)
        load_database(url, folder / DUMP)
        upgrade(database)
        ReadOnlyRepository(database).turn_on(f"restored from the backup of {made_at}")
        missing = [
            key for key in restoration.result_keys() if not (folder / OBJECTS / key).exists()
        ]
    _print({"made_at": made_at, "objects": copied.objects, "missing": missing}, as_json=as_json)


def _read_summary(folder: Path) -> dict[str, str]:
    try:
        summary: dict[str, str] = json.loads((folder / SUMMARY).read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{folder} is no backup that came to its end: it has no {SUMMARY}"
        ) from error
    return summary


def _open_store(settings: BackupSettings) -> "ObjectStore":
    from shared.storage import ObjectStore

    return ObjectStore(settings.store)


@contextmanager
def _reaching_the_store() -> Iterator[None]:
    try:
        yield
    except StorageUnavailable as error:
        raise ServiceUnreachable(error.detail) from error


def _print(document: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(document))
        return
    for name, value in document.items():
        shown = ", ".join(value) or "nothing" if isinstance(value, list) else value
        typer.echo(f"{name.replace('_', ' ')}: {shown}")
