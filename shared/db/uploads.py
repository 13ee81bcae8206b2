"""Uploaded pictures, each of one tenant and named by its content."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from shared.db.tables import uploads


@dataclass(frozen=True, slots=True)
class Upload:
    """A stored picture, as far as its first bytes tell."""

    id: str
    tenant: str
    content_type: str
    num_bytes: int
    sha256: str
    created_at: datetime


def upload_id_of(tenant: str, sha256: str) -> str:
    """Name a tenant's upload by its content: the same bytes again are the same upload."""
    return f"upl_{hashlib.sha256(f'{tenant} {sha256}'.encode()).hexdigest()[:32]}"


class UploadRepository:
    """Note and find uploads. Each method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def insert(self, tenant: str, *, content_type: str, num_bytes: int, sha256: str) -> Upload:
        """Note an upload whose bytes are stored; one that was noted before stays as it is."""
        upload_id = upload_id_of(tenant, sha256)
        statement = (
            insert(uploads)
            .values(
                id=upload_id,
                tenant=tenant,
                content_type=content_type,
                num_bytes=num_bytes,
                sha256=sha256,
            )
            .on_conflict_do_nothing()
        )
        with self._engine.begin() as connection:
            connection.execute(statement)
            return _read(connection.execute(_find(tenant, upload_id)).one())

    def find(self, tenant: str, upload_id: str) -> Upload | None:
        """Return an upload; None if the tenant has no such one."""
        with self._engine.connect() as connection:
            row = connection.execute(_find(tenant, upload_id)).one_or_none()
        return None if row is None else _read(row)


def _find(tenant: str, upload_id: str) -> sa.Select[Any]:
    return sa.select(uploads).where(uploads.c.tenant == tenant, uploads.c.id == upload_id)


def _read(row: sa.Row[Any]) -> Upload:
    return Upload(**row._mapping)
