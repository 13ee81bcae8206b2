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
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from shared.db.tables import api_keys

_KEY = re.compile(r"lq_([a-z2-7]{16})_([0-9a-f]{64})_([0-9a-f]{8})")
_NO_HASH = bytes(32)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request comes from."""

    key_id: str
    tenant: str
    name: str


def mint_key() -> str:
    """Make a new key, to be shown once."""
    key_id = base64.b32encode(secrets.token_bytes(10)).decode().lower()
    body = f"lq_{key_id}_{secrets.token_hex(32)}"
    return f"{body}_{_checksum(body)}"


class KeyRepository:
    """Who may use the API."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def ensure(self, plaintext: str, *, tenant: str, name: str) -> None:
        """Make a key valid that was minted elsewhere; one that is known stays as it is.

        Raises:
            ValueError: The text is not a key.
        """
        parts = _split(plaintext)
        if parts is None:
            raise ValueError("not an API key")
        key_id, secret = parts
        row = {"id": key_id, "tenant": tenant, "name": name, "secret_sha256": _hash(secret)}
        with self._engine.begin() as connection:
            connection.execute(insert(api_keys).values(row).on_conflict_do_nothing())

    def find(self, plaintext: str) -> Principal | None:
        """Return whose key this is, or None if it is no valid key."""
        parts = _split(plaintext)
        if parts is None:
            return None
        key_id, secret = parts
        query = sa.select(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        # Compared even without a row, so that time does not tell which ids exist.
        matches = hmac.compare_digest(_hash(secret), row.secret_sha256 if row else _NO_HASH)
        return Principal(row.id, row.tenant, row.name) if row and matches else None


def _split(plaintext: str) -> tuple[str, str] | None:
    match = _KEY.fullmatch(plaintext)
    if match is None or _checksum(plaintext.rpartition("_")[0]) != match[3]:
        return None
    return match[1], match[2]


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
