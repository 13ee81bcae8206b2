"""Uploads that clients bring to the store themselves, until they are complete."""

from dataclasses import dataclass, fields
from datetime import datetime, timedelta

import sqlalchemy as sa

from shared.db.tables import incoming_uploads
from shared.errors import NotFound

#: How long a file may be sent for, in seconds.
LINK_TTL_S = 900


@dataclass(frozen=True, slots=True)
class IncomingUpload:
    """A file that was announced, as its owner described it."""

    id: str
    content_type: str
    num_bytes: int
    sha256: str | None
    expires_at: datetime
    #: The upload that it has become; None until it is complete.
    upload_id: str | None


class IncomingUploadRepository:
    """Note what will come, and what it has become. Each method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def add(
        self, tenant: str, *, content_type: str, num_bytes: int, sha256: str | None
    ) -> IncomingUpload:
        """Note a file that will be sent within `LINK_TTL_S`."""
        number = sa.func.replace(sa.cast(sa.func.gen_random_uuid(), sa.Text), "-", "")
        statement = (
            incoming_uploads.insert()
            .values(
                id="inc_" + number,
                tenant=tenant,
                content_type=content_type,
                num_bytes=num_bytes,
                sha256=sha256,
                expires_at=sa.func.now() + timedelta(seconds=LINK_TTL_S),
            )
            .returning(*_SHOWN)
        )
        with self._engine.begin() as connection:
            return IncomingUpload(**connection.execute(statement).one()._mapping)

    def get(self, tenant: str, incoming_id: str) -> IncomingUpload:
        """Read what was announced.

        Raises:
            NotFound: The tenant has announced no such thing, or it is too long ago.
        """
        query = sa.select(*_SHOWN).where(
            incoming_uploads.c.tenant == tenant, incoming_uploads.c.id == incoming_id
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound("there is no such upload")
        return IncomingUpload(**row._mapping)

    def finish(self, tenant: str, incoming_id: str, *, upload_id: str) -> None:
        """Note what it has become; the first to say so decides."""
        statement = (
            incoming_uploads.update()
            .where(
                incoming_uploads.c.tenant == tenant,
                incoming_uploads.c.id == incoming_id,
                incoming_uploads.c.upload_id.is_(None),
            )
            .values(upload_id=upload_id)
        )
        with self._engine.begin() as connection:
            connection.execute(statement)


_SHOWN = [incoming_uploads.c[field.name] for field in fields(IncomingUpload)]
