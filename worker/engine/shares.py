"""How much of the device each tenant had, so that the next turn goes to who had least."""

from dataclasses import dataclass


@dataclass(slots=True)
class _Account:
    served_ms: float
    num_entries: int = 0


class Shares:
    """Milliseconds of the device for each tenant that has work here.

    Who comes anew starts at the least of the others: time away is no credit. Who has no more work
    is forgotten.
    """

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}

    def join(self, tenant: str) -> None:
        """Count one more entry of a tenant."""
        if tenant not in self._accounts:
            self._accounts[tenant] = _Account(self._least())
        self._accounts[tenant].num_entries += 1

    def leave(self, tenant: str) -> None:
        """Count one entry of a tenant less."""
        account = self._accounts[tenant]
        account.num_entries -= 1
        if account.num_entries == 0:
            del self._accounts[tenant]

    def charge(self, tenant: str, ms: float) -> None:
        """Note that a tenant had the device for some milliseconds."""
        self._accounts[tenant].served_ms += ms

    def leads(self) -> dict[str, float]:
        """Return by how many milliseconds each tenant is ahead of the one that had least."""
        least = self._least()
        return {name: account.served_ms - least for name, account in self._accounts.items()}

    def _least(self) -> float:
        return min((account.served_ms for account in self._accounts.values()), default=0.0)
