"""API keys that were valid a moment ago, so that a busy client costs no look-up each time."""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta

from shared.db.keys import KeyRepository, Principal
from shared.db.session import DATABASE_AWAY

#: How long a revoked key may still work in this process.
CACHE_TTL = timedelta(seconds=30)


class Keyring:
    """Look keys up. Only valid ones are remembered: guesses cannot fill the memory."""

    def __init__(self, repository: KeyRepository, clock: Callable[[], datetime]) -> None:
        self._repository = repository
        self._clock = clock
        self._known: dict[bytes, tuple[Principal, datetime]] = {}
        # Exchanged as a whole when it is written down.
        self._used: set[str] = set()

    def recall(self, plaintext: str, *, max_age: timedelta = CACHE_TTL) -> Principal | None:
        """Return whose key this is if it was a valid one at most `max_age` ago; asks nobody."""
        known = self._known.get(_digest(plaintext))
        if known is None:
            return None
        (principal, known_at), now = known, self._clock()
        has_expired = principal.expires_at is not None and now >= principal.expires_at
        if has_expired or now >= known_at + max_age:
            return None
        self._used.add(principal.key_id)
        return principal

    def find(self, plaintext: str, *, max_age: timedelta = CACHE_TTL) -> Principal | None:
        """Return whose key this is, or None if it was no valid key at most `max_age` ago."""
        if (known := self.recall(plaintext, max_age=max_age)) is not None:
            return known
        now = self._clock()
        principal = self._repository.find(plaintext)
        if principal is None:
            self._known.pop(_digest(plaintext), None)
        else:
            self._known[_digest(plaintext)] = (principal, now)
            self._used.add(principal.key_id)
        return principal

    def write_usage(self) -> None:
        """Write down which keys were used since the last time; no request waits for it.

        Raises:
            OperationalError: PostgreSQL does not answer; they are written the next time.
        """
        used, self._used = self._used, set()
        # A copy: a request may be adding to what it found just before.
        key_ids = tuple(used)
        if not key_ids:
            return
        try:
            self._repository.note_used(key_ids)
        except DATABASE_AWAY:
            self._used.update(key_ids)
            raise


def _digest(plaintext: str) -> bytes:
    # Hashed, so that a dump of the memory holds no keys.
    return hashlib.sha256(plaintext.encode()).digest()
