"""Uploaded pictures, each of one tenant and named by its content."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from shared.db.tables import uploads
from shared.errors import FieldProblem, InvalidRequest, ServiceUnavailable
from shared.request import GenerationRequest


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

    def reserve(self, tenant: str, *, content_type: str, num_bytes: int, sha256: str) -> str:
        """Note an upload whose bytes will be stored now, and return its id.

        The row is there before the bytes are, so that none are ever stored that nobody knows of;
        and from now on, for as long as uploads are kept, nobody deletes them.
        """
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
            .on_conflict_do_update(index_elements=["id"], set_={"sent_at": sa.func.now()})
        )
        with self._engine.begin() as connection:
            connection.execute(statement)
        return upload_id

    def confirm(self, tenant: str, upload_id: str) -> Upload:
        """Say that the bytes of a reserved upload are stored: jobs may start from it.

        Raises:
            ServiceUnavailable: Storing them took so long that the row is gone.
        """
        statement = (
            uploads.update()
            .where(uploads.c.tenant == tenant, uploads.c.id == upload_id)
            .values(is_stored=True, sent_at=sa.func.now())
            .returning(*_SHOWN)
        )
        with self._engine.begin() as connection:
            row = connection.execute(statement).one_or_none()
        if row is None:
            raise ServiceUnavailable("storing the upload took too long; send it again")
        return _read(row)

    def find(self, tenant: str, upload_id: str) -> Upload | None:
        """Return an upload that jobs may start from; None if the tenant has no such one."""
        query = sa.select(*_SHOWN).where(_is_usable(tenant, [upload_id]))
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _read(row)


def lock_inputs(connection: sa.Connection, tenant: str, request: GenerationRequest) -> None:
    """Keep the uploads that a request names until the transaction that stores its job has ended.

    After that the job keeps them. Those who submit with the same upload do not wait for each other.

    Raises:
        InvalidRequest: One of them is there no longer; names the fields.
    """
    inputs = {"init_image": request.init_image, "mask": request.mask}
    named = {name: image.id for name, image in inputs.items() if image is not None}
    if not named:
        return
    query = sa.select(uploads.c.id).where(_is_usable(tenant, named.values()))
    kept = set(connection.scalars(query.with_for_update(read=True)))
    refuse_uploads([name for name, upload_id in named.items() if upload_id not in kept])


def refuse_uploads(names: Sequence[str]) -> None:
    """Refuse a request for the fields that name an upload which is not there, if any do.

    Raises:
        InvalidRequest: Some do.
    """
    if names:
        detail = "no such upload; POST /v1/uploads takes pictures"
        raise InvalidRequest(
            [FieldProblem(f"#/{name}", detail) for name in names], code="unknown_upload"
        )


def _is_usable(tenant: str, upload_ids: Collection[str]) -> sa.ColumnElement[bool]:
    return sa.and_(
        uploads.c.tenant == tenant, uploads.c.id.in_(upload_ids), uploads.c.is_stored.is_(True)
    )


_SHOWN = [uploads.c[field.name] for field in fields(Upload)]


def _read(row: sa.Row[Any]) -> Upload:
    return Upload(**row._mapping)
