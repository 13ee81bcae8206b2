"""Where an S3-compatible store is, and who we are there."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Addressing(StrEnum):
    """Where a URL names the bucket."""

    #: `https://s3.example.com/BUCKET/KEY`: every store knows it.
    PATH = "path"
    #: `https://BUCKET.s3.example.com/KEY`: the store's name and certificate must cover it.
    VIRTUAL = "virtual"


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Everything that a connection to a bucket needs."""

    bucket: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"
    #: Its URL; None for AWS's own S3 of the region.
    endpoint: str | None = None
    #: What clients reach it by, where that differs.
    public_endpoint: str | None = None
    #: None for what the endpoint surely knows: the path, or at AWS the host.
    addressing: Addressing | None = None
    #: Whom to trust in place of the usual authorities: a file of PEM certificates.
    ca_bundle: Path | None = None
