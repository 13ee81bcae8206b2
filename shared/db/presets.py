"""Presets of tenants: versions are added and hidden, never changed."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on, insert

from shared.db.tables import presets
from shared.errors import Conflict, NotFound

#: Most presets of a tenant.
MAX_PRESETS = 100
#: Most versions of a preset.
MAX_VERSIONS = 1000


@dataclass(frozen=True, slots=True)
class StoredPreset:
    """A version of a tenant's preset."""

    name: str
    version: int
    description: str
    #: The fields of a request that it settles, in the shape of the wire.
    request: Mapping[str, Any]
    created_at: datetime
    #: New jobs cannot name it any more.
    deleted_at: datetime | None


class PresetRepository:
    """Presets of tenants. Each method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def put(
        self, tenant: str, name: str, *, description: str, request: Mapping[str, Any]
    ) -> tuple[StoredPreset, bool]:
        """Make the next version of a preset; returns it and True.

        Returns the newest version and False if it says the same already.

        Raises:
            Conflict: The tenant has too many presets or versions.
        """
        with self._engine.begin() as connection:
            while True:
                newest = _find(connection, tenant, name)
                is_there = newest is not None and newest.deleted_at is None
                if newest is not None and is_there:
                    if (newest.description, newest.request) == (description, request):
                        return newest, False
                else:
                    _check_number(connection, tenant)
                version = 1 if newest is None else newest.version + 1
                if version > MAX_VERSIONS:
                    detail = f"the name has had {MAX_VERSIONS:,} versions; take another"
                    raise Conflict(detail, code="too_many_presets")
                values = {
                    "tenant": tenant,
                    "name": name,
                    "version": version,
                    "description": description,
                    "request": dict(request),
                }
                # Waits for somebody who makes the same version, and then makes the next.
                statement = insert(presets).values(values).on_conflict_do_nothing()
                row = connection.execute(statement.returning(*_SHOWN)).one_or_none()
                if row is not None:
                    return _read(row), True

    def find(self, tenant: str, name: str, version: int | None = None) -> StoredPreset | None:
        """Return a version of a preset, the newest unless one is named; deleted ones too."""
        with self._engine.connect() as connection:
            return _find(connection, tenant, name, version)

    def newest(self, tenant: str) -> list[StoredPreset]:
        """Read the newest version of each preset, by name."""
        query = (
            sa.select(*_SHOWN)
            .ext(distinct_on(presets.c.name))
            .where(presets.c.tenant == tenant, presets.c.deleted_at.is_(None))
            .order_by(presets.c.name, presets.c.version.desc())
        )
        with self._engine.connect() as connection:
            return [_read(row) for row in connection.execute(query)]

    def versions(self, tenant: str, name: str) -> list[StoredPreset]:
        """Read all versions of a preset, the newest first.

        Raises:
            NotFound: The tenant has no such preset.
        """
        query = sa.select(*_SHOWN).where(*_is_kept(tenant, name)).order_by(presets.c.version.desc())
        with self._engine.connect() as connection:
            found = [_read(row) for row in connection.execute(query)]
        if not found:
            raise NotFound("there is no such preset")
        return found

    def delete(self, tenant: str, name: str) -> None:
        """Hide all versions of a preset from new jobs.

        Raises:
            NotFound: The tenant has no such preset.
        """
        statement = presets.update().where(*_is_kept(tenant, name)).values(deleted_at=sa.func.now())
        with self._engine.begin() as connection:
            num_hidden = connection.execute(statement).rowcount
        if num_hidden == 0:
            raise NotFound("there is no such preset")


_SHOWN = [presets.c[field.name] for field in fields(StoredPreset)]


def _find(
    connection: sa.Connection, tenant: str, name: str, version: int | None = None
) -> StoredPreset | None:
    query = sa.select(*_SHOWN).where(presets.c.tenant == tenant, presets.c.name == name)
    if version is not None:
        query = query.where(presets.c.version == version)
    row = connection.execute(query.order_by(presets.c.version.desc()).limit(1)).one_or_none()
    return None if row is None else _read(row)


def _is_kept(tenant: str, name: str) -> tuple[sa.ColumnElement[bool], ...]:
    return presets.c.tenant == tenant, presets.c.name == name, presets.c.deleted_at.is_(None)


def _check_number(connection: sa.Connection, tenant: str) -> None:
    query = sa.select(sa.func.count(presets.c.name.distinct())).where(
        presets.c.tenant == tenant, presets.c.deleted_at.is_(None)
    )
    if connection.execute(query).scalar_one() >= MAX_PRESETS:
        detail = f"there are {MAX_PRESETS} presets already; delete one first"
        raise Conflict(detail, code="too_many_presets")


def _read(row: sa.Row[Any]) -> StoredPreset:
    return StoredPreset(**row._mapping)
