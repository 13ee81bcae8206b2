"""Rest while the service is read-only."""

from collections.abc import Callable

from shared.db.read_only import ReadOnlyRepository


def unless_read_only(
    read_only: ReadOnlyRepository, run_once: Callable[[], None]
) -> Callable[[], None]:
    """Make a service that deletes objects rest, so that a backup finds all that its rows name."""

    def run_unless() -> None:
        if read_only.find() is None:
            run_once()

    return run_unless
