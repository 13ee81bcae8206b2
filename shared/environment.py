"""Environment variables with the prefix `LATENTQ_` become values, at process entry.

Any of them may be given as `..._FILE` instead, naming a file that holds the value.
"""

import os
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from shared.errors import ConfigurationError

PREFIX = "LATENTQ_"


class Settings(BaseSettings):
    """Where environment variables become values; a process adds its groups by inheriting them."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is the library's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment, then `..._FILE` variables; nothing else."""
        return init_settings, env_settings, _FileSource(settings_cls)

    @classmethod
    def read(cls) -> Self:
        """Read this process's settings.

        Raises:
            ConfigurationError: A variable is missing or wrong; names the variable, never its value.
        """
        try:
            return cls()
        except (ValidationError, OSError) as error:
            raise ConfigurationError(_explain(error)) from error


class _FileSource(PydanticBaseSettingsSource):
    """Reads the files that `LATENTQ_..._FILE` variables name."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        path = os.environ.get(f"{PREFIX}{field_name.upper()}_FILE")  # noqa: TID251 - the one reader
        return (None if path is None else Path(path).read_text().strip()), field_name, False

    def __call__(self) -> dict[str, Any]:
        values = {}
        for name, field in self.settings_cls.model_fields.items():
            value, key, _ = self.get_field_value(field, name)
            if value is not None:
                values[key] = value
        return values


def _explain(error: ValidationError | OSError) -> str:
    if isinstance(error, OSError):
        return f"cannot read the file {error.filename} that a {PREFIX}..._FILE variable names"
    first = error.errors()[0]
    if not first["loc"]:
        # What a validator of ours says of several variables names them.
        return first["msg"].removeprefix("Value error, ")
    name = f"{PREFIX}{str(first['loc'][0]).upper()}"
    if first["type"] == "missing":
        return f"set {name} (or {name}_FILE)"
    return f"{name}: {first['msg']}"
