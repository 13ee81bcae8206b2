"""What caches may do with an answer."""

from fastapi import Response


def forbid_caching(response: Response) -> None:
    """Have every cache ask again: the answer is one caller's, and of this moment."""
    response.headers["Cache-Control"] = "private, no-cache"


def forbid_storing(response: Response) -> None:
    """Have no cache keep the answer: it holds a secret."""
    response.headers["Cache-Control"] = "no-store"
