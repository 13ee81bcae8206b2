"""A database as a file, by PostgreSQL's own programs."""

import os
import shutil
import subprocess
from pathlib import Path

import sqlalchemy as sa

from cli.standalone.postgres import find_programs
from shared.errors import ConfigurationError

#: Whoever restores it may have other roles: objects belong to whom the URL names.
_PORTABLE = ("--no-owner", "--no-privileges")


def dump_database(url: str, path: Path) -> None:
    """Write a database as it is at this moment into a file.

    Raises:
        ConfigurationError: pg_dump is missing or did not succeed; says what it said.
    """
    _run("pg_dump", url, "--format=custom", *_PORTABLE, f"--file={path}")


def load_database(url: str, path: Path) -> None:
    """Fill an empty database from such a file, with all of it or nothing.

    Raises:
        ConfigurationError: pg_restore is missing or did not succeed; says what it said.
    """
    _run("pg_restore", url, "--single-transaction", "--exit-on-error", *_PORTABLE, str(path))


def _run(program: str, url: str, *arguments: str) -> None:
    given = sa.make_url(url)
    # A command line shows its words to everybody on the machine.
    shown = sa.URL.create(
        "postgresql",
        username=given.username,
        host=given.host,
        port=given.port,
        database=given.database,
        query=given.query,
    )
    ended = subprocess.run(
        [_find(program), *arguments, f"--dbname={shown.render_as_string()}"],
        env={**os.environ, "PGPASSWORD": given.password or ""},  # noqa: TID251 - handed on
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or ["no reason given"]
        raise ConfigurationError(f"{program} did not succeed: {lines[-1]}")


def _find(program: str) -> str:
    """Return the path of a program: of the installed wheel, whose version fits, or of the host.

    Raises:
        ConfigurationError: There is none.
    """
    try:
        return str(find_programs() / program)
    except ConfigurationError:
        found = shutil.which(program)
    if found is None:
        raise ConfigurationError(
            f"{program} is missing: install PostgreSQL's client programs, or latentq[standalone]"
        )
    return found
