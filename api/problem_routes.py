"""`/problems/{code}`: where the `type` of a problem leads, open to all who got one."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from api.openapi import refusals
from api.problem_guide import explain_problem, slug_of
from api.problems import PROBLEM_TYPES
from shared.errors import NotFound

_PAGES = {slug_of(code): explain_problem(code) for code in PROBLEM_TYPES}

router = APIRouter(prefix="/problems", tags=["problems"])


class Markdown(PlainTextResponse):
    """Text that reads well as it is."""

    media_type = "text/markdown"


@router.get("/{slug}", response_class=Markdown, responses=refusals(404))
async def explain_problem_type(slug: str) -> Markdown:
    """Read what a kind of problem means and what to do."""
    if slug not in _PAGES:
        raise NotFound(f"the kinds of problems are: {', '.join(sorted(_PAGES))}")
    return Markdown(_PAGES[slug])
