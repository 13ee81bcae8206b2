"""API keys: minted once, stored as a hash.

A key reads `lq_<id>_<secret>_<checksum>`: the id finds the row, the checksum lets scanners and
clients reject a mistyped key without asking. SHA-256 is right for 256 random bits; a slow hash adds
nothing.
"""

import base64
import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from shared.access import NO_LIMITS, OVERLAP_S, KeyLimits, KeyTerms, Scope
from shared.db.tables import api_keys
from shared.errors import NotFound

_KEY = re.compile(r"lq_([a-z2-7]{16})_([0-9a-f]{64})_([0-9a-f]{8})")
_NO_HASH = bytes(32)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request comes from."""

    key_id: str
    tenant: str
    name: str
    scopes: frozenset[Scope]
    limits: KeyLimits = NO_LIMITS
    expires_at: datetime | None = None

    def may(self, scope: Scope) -> bool:
        """Tell whether the key is for a kind of request."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its owner sees it; what opens the door is nowhere."""

    id: str
    tenant: str
    name: str
    #: The last characters; None of keys older than the column.
    last4: str | None
    scopes: frozenset[Scope]
    limits: KeyLimits
    created_at: datetime
    expires_at: datetime | None
    #: Up to a minute behind.
    last_used_at: datetime | None


_DEFAULT_TERMS = KeyTerms()


def mint_key() -> str:
    """Make a new key, to be shown once."""
    key_id = base64.b32encode(secrets.token_bytes(10)).decode().lower()
    body = f"lq_{key_id}_{secrets.token_hex(32)}"
    return f"{body}_{_checksum(body)}"


class KeyRepository:
    """Who may use the API. Each method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def ensure(
        self, plaintext: str, *, tenant: str, name: str, terms: KeyTerms = _DEFAULT_TERMS
    ) -> None:
        """Make a key valid that was minted elsewhere; one that is known stays as it is.

        Raises:
            ValueError: The text is not a key.
        """
        parts = _split(plaintext)
        if parts is None:
            raise ValueError("not an API key")
        key_id, secret = parts
        expires_in = terms.expires_in_s and timedelta(seconds=terms.expires_in_s)
        row = {
            "id": key_id,
            "tenant": tenant,
            "name": name,
            "secret_sha256": _hash(secret),
            "last4": plaintext[-4:],
            "scopes": sorted(terms.scopes),
            "limits": _limit_values(terms.limits),
            "expires_at": expires_in and sa.func.now() + expires_in,
        }
        with self._engine.begin() as connection:
            connection.execute(insert(api_keys).values(row).on_conflict_do_nothing())

    def find(self, plaintext: str) -> Principal | None:
        """Return whose key this is, or None if it is no valid key."""
        parts = _split(plaintext)
        if parts is None:
            return None
        key_id, secret = parts
        query = sa.select(api_keys).where(_is_key(None, key_id), _has_not_ended())
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        # Compared even without a row, so that time does not tell which ids exist.
        matches = hmac.compare_digest(_hash(secret), row.secret_sha256 if row else _NO_HASH)
        if row is None or not matches:
            return None
        return Principal(
            key_id=row.id,
            tenant=row.tenant,
            name=row.name,
            scopes=frozenset(map(Scope, row.scopes)),
            limits=KeyLimits.model_validate(row.limits),
            expires_at=row.expires_at,
        )

    def all(self, tenant: str | None) -> list[ApiKey]:
        """List the keys of a tenant that were not revoked, or of all tenants, oldest first."""
        query = (
            sa.select(api_keys)
            .where(*_of(tenant), api_keys.c.revoked_at.is_(None))
            .order_by(api_keys.c.tenant, api_keys.c.created_at, api_keys.c.id)
        )
        with self._engine.connect() as connection:
            return [_read(row) for row in connection.execute(query)]

    def get(self, tenant: str | None, key_id: str) -> ApiKey:
        """Read a key of a tenant, or of any.

        Raises:
            NotFound: There is no such key, or it was revoked.
        """
        query = sa.select(api_keys).where(_is_key(tenant, key_id))
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return _found(row)

    def revoke(self, tenant: str | None, key_id: str) -> None:
        """Make a key of a tenant, or of any, invalid; processes that know it forget it soon.

        Raises:
            NotFound: There is no such key, or it was revoked.
        """
        self._change(tenant, key_id, {"revoked_at": sa.func.now()})

    def rotate(self, tenant: str | None, key_id: str, successor: str) -> ApiKey:
        """Make a minted key valid on the terms of another one, which ends `OVERLAP_S` from now.

        The successor lives as long as the other one was made to.

        Raises:
            NotFound: There is no such key, or it was revoked or has ended.
            ValueError: The successor is not a key.
        """
        parts = _split(successor)
        if parts is None:
            raise ValueError("not an API key")
        find = sa.select(api_keys).where(_is_key(tenant, key_id), _has_not_ended())
        latest_end = sa.func.now() + timedelta(seconds=OVERLAP_S)
        with self._engine.begin() as connection:
            former = connection.execute(find.with_for_update()).one_or_none()
            if former is None:
                raise NotFound("there is no such key")
            connection.execute(
                api_keys.update()
                .where(api_keys.c.id == former.id)
                # The least of those that are there.
                .values(expires_at=sa.func.least(api_keys.c.expires_at, latest_end))
            )
            lifetime = former.expires_at and former.expires_at - former.created_at
            values = {
                "id": parts[0],
                "tenant": former.tenant,
                "name": former.name,
                "secret_sha256": _hash(parts[1]),
                "last4": successor[-4:],
                "scopes": former.scopes,
                "limits": former.limits,
                "expires_at": lifetime and sa.func.now() + lifetime,
            }
            made = api_keys.insert().values(values).returning(api_keys)
            return _read(connection.execute(made).one())

    def limit(self, tenant: str | None, key_id: str, limits: KeyLimits) -> ApiKey:
        """Give a key other limits in place of all it has.

        Raises:
            NotFound: There is no such key, or it was revoked.
        """
        return self._change(tenant, key_id, {"limits": _limit_values(limits)})

    def note_used(self, key_ids: Collection[str]) -> None:
        """Say that keys were used just now."""
        statement = (
            api_keys.update().where(api_keys.c.id.in_(key_ids)).values(last_used_at=sa.func.now())
        )
        with self._engine.begin() as connection:
            connection.execute(statement)

    def _change(self, tenant: str | None, key_id: str, values: dict[str, Any]) -> ApiKey:
        statement = (
            api_keys.update().where(_is_key(tenant, key_id)).values(values).returning(api_keys)
        )
        with self._engine.begin() as connection:
            row = connection.execute(statement).one_or_none()
        return _found(row)


def key_id_of(plaintext: str) -> str:
    """Return the id of a key that was minted."""
    return plaintext.split("_")[1]


def _of(tenant: str | None) -> list[sa.ColumnElement[bool]]:
    return [] if tenant is None else [api_keys.c.tenant == tenant]


def _is_key(tenant: str | None, key_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(*_of(tenant), api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))


def _has_not_ended() -> sa.ColumnElement[bool]:
    return sa.func.coalesce(api_keys.c.expires_at > sa.func.now(), sa.true())


def _found(row: sa.Row[Any] | None) -> ApiKey:
    if row is None:
        raise NotFound("there is no such key")
    return _read(row)


def _read(row: sa.Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        tenant=row.tenant,
        name=row.name,
        last4=row.last4,
        scopes=frozenset(map(Scope, row.scopes)),
        limits=KeyLimits.model_validate(row.limits),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
    )


def _limit_values(limits: KeyLimits) -> dict[str, Any]:
    return limits.model_dump(mode="json", exclude_none=True)


def _split(plaintext: str) -> tuple[str, str] | None:
    match = _KEY.fullmatch(plaintext)
    if match is None or _checksum(plaintext.rpartition("_")[0]) != match[3]:
        return None
    return match[1], match[2]


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
