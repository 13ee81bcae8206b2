"""The uploads that a body names."""

from collections.abc import Callable
from dataclasses import dataclass

from api.schemas import JobCreate
from shared.db.uploads import Upload, refuse_uploads
from shared.request import InputImage


@dataclass(frozen=True, slots=True)
class Inputs:
    """The pictures of a job, found and the caller's own; None where the body names none."""

    init_image: InputImage | None = None
    mask: InputImage | None = None


def find_inputs(find_upload: Callable[[str], Upload | None], body: JobCreate) -> Inputs:
    """Look the uploads of a body up among the tenant's own.

    Raises:
        InvalidRequest: The tenant has no such upload.
    """
    named = {"init_image": body.init_image, "mask": body.mask}
    found = {}
    for name, upload_id in named.items():
        upload = None if upload_id is None else find_upload(upload_id)
        if upload is not None:
            found[name] = InputImage(id=upload.id, sha256=upload.sha256)
    refuse_uploads([name for name in named if named[name] is not None and name not in found])
    return Inputs(**found)
