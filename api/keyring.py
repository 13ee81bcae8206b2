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

    def knows(self, plaintext: str) -> bool:
        """Whether a key was valid a moment ago, which is known without asking anybody."""
        known = self._known.get(hashlib.sha256(plaintext.encode()).digest())
        return known is not None and self._clock() < known[1]

    def find(self, plaintext: str) -> Principal | None:
        """Return whose key this is, or None if it is no valid key."""
        now = self._clock()
        # Hashed, so that a dump of the memory holds no keys.
        digest = hashlib.sha256(plaintext.encode()).digest()
        known = self._known.get(digest)
        if known is not None and now < known[1]:
            self._used.add(known[0].key_id)
            return known[0]
        principal = self._repository.find(plaintext)
        if principal is None:
            self._known.pop(digest, None)
        else:
            until = now + CACHE_TTL
            expires_at = principal.expires_at
            self._known[digest] = (
                principal,
                until if expires_at is None else min(until, expires_at),
            )
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
