"""The uploads that a body names."""

from dataclasses import dataclass

from api.schemas import JobCreate
from shared.db.uploads import UploadRepository
from shared.errors import FieldProblem, InvalidRequest
from shared.request import InputImage


@dataclass(frozen=True, slots=True)
class Inputs:
    """The pictures of a job, found and the caller's own; None where the body names none."""

    init_image: InputImage | None = None
    mask: InputImage | None = None


def find_inputs(uploads: UploadRepository, tenant: str, body: JobCreate) -> Inputs:
    """Look the uploads of a body up.

    Raises:
        InvalidRequest: The tenant has no such upload.
    """
    named = {"init_image": body.init_image, "mask": body.mask}
    found, problems = {}, []
    for name, upload_id in named.items():
        if upload_id is None:
            continue
        upload = uploads.find(tenant, upload_id)
        if upload is None:
            problems.append(
                FieldProblem(f"#/{name}", "no such upload; POST /v1/uploads takes pictures")
            )
        else:
            found[name] = InputImage(id=upload.id, sha256=upload.sha256)
    if problems:
        raise InvalidRequest(problems, code="unknown_upload")
    return Inputs(**found)
