"""API keys that were valid a moment ago, so that a busy client costs no look-up each time."""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta

from shared.db.keys import KeyRepository, Principal

#: How long a revoked key may still work in this process.
CACHE_TTL = timedelta(seconds=30)


class Keyring:
    """Look keys up. Only valid ones are remembered: guesses cannot fill the memory."""

    def __init__(self, repository: KeyRepository, clock: Callable[[], datetime]) -> None:
        self._repository = repository
        self._clock = clock
        self._known: dict[bytes, tuple[Principal, datetime]] = {}

    def find(self, plaintext: str, *, max_age: timedelta = CACHE_TTL) -> Principal | None:
        """Return whose key this is, or None if it was no valid key at most `max_age` ago."""
        now = self._clock()
        # Hashed, so that a dump of the memory holds no keys.
        digest = hashlib.sha256(plaintext.encode()).digest()
        known = self._known.get(digest)
        if known is not None and now < known[1] + max_age:
            return known[0]
        principal = self._repository.find(plaintext)
        if principal is None:
            self._known.pop(digest, None)
        else:
            self._known[digest] = (principal, now)
        return principal
