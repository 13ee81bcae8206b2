"""Ids that callers write into paths."""

from shared.errors import NotFound


def check_id(written: str, *, of: str = "job") -> str:
    """Return an id that something of a kind may have.

    Raises:
        NotFound: Nothing can.
    """
    # PostgreSQL would refuse it with an error of its own.
    if "\0" in written:
        raise NotFound(f"there is no such {of}")
    return written
