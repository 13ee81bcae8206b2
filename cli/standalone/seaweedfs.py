"""An S3-compatible SeaweedFS out of a wheel."""

import sysconfig
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from cli.standalone.child import ChildSpec
from cli.standalone.state import DataDir
from shared.errors import ConfigurationError, ServiceUnavailable
from shared.storage import ObjectStore
from shared.store_address import StoreAddress

BUCKET = "latentq"
REGION = "us-east-1"


def describe(data_dir: DataDir, ports: Mapping[str, int]) -> ChildSpec:
    """Say how to run the server of a data directory.

    Raises:
        ConfigurationError: The wheel is missing.
    """
    program = Path(sysconfig.get_path("scripts")) / "weed"
    if not program.exists():
        raise ConfigurationError("SeaweedFS is missing: install latentq[standalone]")
    folder = data_dir.path / "seaweedfs"
    options = {
        "dir": str(folder),
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "bucket": BUCKET,
        "webdav": "false",
        "master.telemetry": "false",
        # Its servers run whether they are wanted or not: at least they ask for a password.
        "admin.ui": "false",
        "admin.password": data_dir.secret("seaweedfs_admin_password"),
        "s3.port.iceberg": "0",
        "s3.port.lance": "0",
    }
    for part in ("master", "volume", "filer", "s3", "admin"):
        options[f"{part}.port"] = str(ports[part])
        options[f"{part}.port.grpc"] = str(ports[f"{part}_grpc"])
    return ChildSpec(
        name="seaweedfs",
        command=[
            *(str(program), "-logtostderr=true", "mini"),
            *(f"-{name}={value}" for name, value in options.items()),
        ],
        environment={
            "AWS_ACCESS_KEY_ID": data_dir.secret("s3_access_key"),
            "AWS_SECRET_ACCESS_KEY": data_dir.secret("s3_secret_key"),
        },
        log_path=data_dir.logs / "seaweedfs.log",
        prepare=partial(folder.mkdir, mode=0o700, exist_ok=True),
        is_ready=partial(_is_ready, _connect(data_dir, ports["s3"])),
    )


def endpoint(port: int) -> str:
    """Return the server's S3 endpoint."""
    return f"http://127.0.0.1:{port}"


def _connect(data_dir: DataDir, port: int) -> ObjectStore:
    return ObjectStore(
        StoreAddress(
            endpoint=endpoint(port),
            region=REGION,
            bucket=BUCKET,
            access_key=data_dir.secret("s3_access_key"),
            secret_key=data_dir.secret("s3_secret_key"),
        )
    )


def _is_ready(store: ObjectStore) -> bool:
    try:
        store.ping()
    except ServiceUnavailable:
        return False
    return True
