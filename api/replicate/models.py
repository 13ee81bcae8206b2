"""Models of the catalog as Replicate's: `ANY-OWNER/CATALOG-ID`, the revision as its version."""

from typing import Any

from fastapi import APIRouter, Depends
from pydantic.json_schema import models_json_schema

from api.auth import Requires
from api.openapi import refusals
from api.replicate.place import BaseUrl
from api.replicate.schemas import ReplicateModel, VersionBody
from api.schemas import JobCreate
from api.services import ServicesOf
from shared.access import Scope
from shared.catalog import Catalog, ModelSpec
from shared.errors import FieldProblem, InvalidRequest, NotFound

router = APIRouter(
    prefix="/replicate/v1/models",
    tags=["replicate"],
    dependencies=[Depends(Requires(Scope.MODELS_READ))],
)


@router.get("/{owner}/{name}", responses=refusals(404))
def get_replicate_model(
    owner: str, name: str, services: ServicesOf, base_url: BaseUrl
) -> ReplicateModel:
    """Read what a model is."""
    spec = find_model(services.resolver.catalog, name)
    return ReplicateModel(
        url=f"{base_url}/models/{owner}/{name}",
        owner=owner,
        name=spec.id,
        description=spec.description,
        latest_version=_show_version(spec),
    )


@router.get("/{owner}/{name}/versions/{version}", responses=refusals(404))
def get_replicate_version(owner: str, name: str, version: str, services: ServicesOf) -> VersionBody:  # noqa: ARG001
    """Read what a model takes and makes."""
    spec = find_model(services.resolver.catalog, name)
    if version != spec.revision:
        raise NotFound(f"there is no such version; {spec.id} has {spec.revision}")
    return _show_version(spec)


def find_model(catalog: Catalog, name: str) -> ModelSpec:
    """Return the model that a path names.

    Raises:
        NotFound: There is none.
    """
    spec = catalog.get(name)
    if spec is None:
        raise NotFound(f"there is no such model; known: {', '.join(catalog.models)}")
    return spec


def find_version(catalog: Catalog, version: str | None) -> ModelSpec:
    """Return the model of a version: its revision alone, or with `owner/name:` before it.

    Raises:
        InvalidRequest: There is none, or several models have it.
    """
    name, colon, revision = (version or "").rpartition(":")
    found = [
        spec
        for spec in catalog
        if spec.revision == revision and (not colon or spec.id == name.rpartition("/")[2])
    ]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{spec.id}:{spec.revision}" for spec in catalog)
    what = "several models have this version" if found else "no such version"
    raise InvalidRequest(
        [FieldProblem("#/version", f"{what}; known: {known}")], code="unknown_model"
    )


def _show_version(spec: ModelSpec) -> VersionBody:
    return VersionBody(id=spec.revision, openapi_schema=_SCHEMA)


def _describe() -> dict[str, Any]:
    """Write the schema of inputs and outputs as Cog does."""
    template = "#/components/schemas/{model}"
    _, found = models_json_schema([(JobCreate, "validation")], ref_template=template)
    schemas = dict(found["$defs"])
    taken = schemas.pop(JobCreate.__name__)
    return {
        "openapi": "3.1.0",
        "info": {"title": "LatentQ", "version": "1"},
        "components": {
            "schemas": {
                **schemas,
                "Input": {**taken, "title": "Input"},
                "Output": {
                    "title": "Output",
                    "type": "array",
                    "items": {"type": "string", "format": "uri"},
                },
            }
        },
    }


_SCHEMA = _describe()
