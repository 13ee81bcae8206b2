"""Whether callers may change anything: an operator closes the service for maintenance."""

from shared.db.read_only import ReadOnlyNotice, ReadOnlyRepository
from shared.errors import LatentqError

#: When to come back, in seconds: maintenance takes longer than an outage.
RETRY_AFTER_S = 30


class ServiceReadOnly(LatentqError):
    """The service only reads for now."""

    code = "read_only"


class ReadOnlyMode:
    """What the operator said last; a thread asks the database, no request does."""

    def __init__(self, repository: ReadOnlyRepository) -> None:
        self._repository = repository
        self._notice: ReadOnlyNotice | None = None

    @property
    def is_on(self) -> bool:
        """Whether changes are refused."""
        return self._notice is not None

    def refresh(self) -> None:
        """Ask.

        Raises:
            OperationalError: PostgreSQL does not answer; the last answer stays.
        """
        self._notice = self._repository.find()

    def check(self) -> None:
        """Refuse a change while the service is closed.

        Raises:
            ServiceReadOnly: It is.
        """
        if self._notice is not None:
            raise ServiceReadOnly(
                f"nothing can be changed for now: {self._notice.reason}; reading works, and"
                " accepted jobs go on"
            )
