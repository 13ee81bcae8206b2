"""What a tenant owns that its bodies may name."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from api.own_presets import FindPreset
from api.services import Services
from shared.db.keys import Principal
from shared.db.uploads import Upload


@dataclass(frozen=True, slots=True)
class Belongings:
    """How to look them up, each with a query."""

    find_upload: Callable[[str], Upload | None]
    find_preset: FindPreset

    def remembered(self) -> "Belongings":
        """Look each up once, however often it is named."""
        return Belongings(find_upload=cache(self.find_upload), find_preset=cache(self.find_preset))


def belongings_of(services: Services, caller: Principal) -> Belongings:
    """Return what a caller's bodies may name."""
    return Belongings(
        find_upload=partial(services.uploads.find, caller.tenant),
        find_preset=partial(services.presets.find, caller.tenant),
    )
