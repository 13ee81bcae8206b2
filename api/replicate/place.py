"""Where Replicate's API is served, as the client reaches it."""

from typing import Annotated

from fastapi import Depends, Request


def find_base_url(request: Request) -> str:
    """Return what addresses of predictions and files begin with."""
    return f"{request.base_url}replicate/v1"


BaseUrl = Annotated[str, Depends(find_base_url)]
