"""Settings of all processes: variables with the prefix `LATENTQ_`, read at process entry.

Any variable may be given as `..._FILE` instead, naming a file that holds the value.
"""

import os
from pathlib import Path
from typing import Any, Self

from pydantic import ByteSize, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from shared.crash_point import CrashPoint
from shared.errors import ConfigurationError
from shared.hub import Hub

PREFIX = "LATENTQ_"
#: A hundred years: for ever, in seconds.
MAX_RETENTION_S = 3_155_760_000.0


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


class DatabaseSettings(Settings):
    """PostgreSQL, the truth."""

    #: `postgresql://user:password@host:port/database`
    database_url: SecretStr


class RedisSettings(Settings):
    """Redis or Valkey, which carries hints."""

    #: `redis://:password@host:port/0`
    redis_url: SecretStr


class StorageSettings(Settings):
    """The S3-compatible store of results."""

    s3_endpoint: str
    #: What clients reach the store by, where it differs; presigned links carry it.
    s3_public_endpoint: str | None = None
    s3_region: str = "us-east-1"
    s3_bucket: str = "latentq"
    s3_access_key: SecretStr
    s3_secret_key: SecretStr


class CatalogSettings(Settings):
    """Which models exist, and where those from a hub are kept."""

    #: Path of a catalog file; the models that come with LatentQ by default.
    catalog: Path | None = None
    #: Folder for files from a hub.
    model_folder: Path = Path("~/.cache/latentq/models")
    #: URL of the hub, if it is not the library's own; who we are there, for closed repositories.
    hub_endpoint: str | None = None
    hub_token: SecretStr | None = None
    #: Whether the hub is never asked: what is not in the folder cannot be served.
    offline: bool = False

    @property
    def hub(self) -> Hub:
        """Where models from a hub come from."""
        token = self.hub_token
        return Hub(
            folder=self.model_folder.expanduser(),
            endpoint=self.hub_endpoint,
            token=None if token is None else token.get_secret_value(),
            is_offline=self.offline,
        )


class WebhookSettings(Settings):
    """Where webhooks may go."""

    #: For development and tests: receivers on this machine, by plain HTTP too.
    webhook_allow_loopback: bool = False


class MetricsSettings(Settings):
    """Where a process shows its metrics."""

    #: Where `/metrics` is served; off unless it is set. Processes on one host need one each.
    metrics_port: int | None = Field(default=None, ge=1, le=65_535)
    #: The address that it listens on.
    metrics_host: str = "127.0.0.1"


class TracingSettings(Settings):
    """Where traces go: OpenTelemetry's own variables, the others of which its SDK reads itself."""

    #: Where an OTLP collector listens by HTTP; there are no traces unless it or the next is set.
    otlp_endpoint: str | None = Field(default=None, validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    #: The same for traces alone, with its whole path.
    otlp_traces_endpoint: str | None = Field(
        default=None, validation_alias="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    )

    @property
    def wants_traces(self) -> bool:
        """Whether somebody is there to take them."""
        return bool(self.otlp_endpoint or self.otlp_traces_endpoint)


class CrashSettings(Settings):
    """Tests only."""

    #: Where the process dies.
    crash_at: CrashPoint | None = None


class ApiSettings(
    DatabaseSettings,
    RedisSettings,
    StorageSettings,
    CatalogSettings,
    WebhookSettings,
    MetricsSettings,
    TracingSettings,
    CrashSettings,
):
    """Everything that `latentq api` reads."""

    #: How long a presigned link works, in seconds.
    link_ttl_s: int = Field(default=3600, ge=60, le=604_800)
    #: Whether OpenAI's Images API is spoken under `/openai/v1`.
    openai: bool = True
    #: Whether Replicate's predictions API is spoken under `/replicate/v1`.
    replicate: bool = True
    #: How many jobs may wait before submissions are refused with 503.
    max_queue_depth: int = Field(default=100_000, ge=1, le=100_000_000)


class WorkerSettings(
    DatabaseSettings,
    RedisSettings,
    StorageSettings,
    CatalogSettings,
    MetricsSettings,
    TracingSettings,
    CrashSettings,
):
    """Everything that `latentq worker` reads."""

    #: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
    device: str = "auto"
    #: Catalog ids to load at the start, separated by commas; as many as fit by default. The others
    #: are loaded when a job of theirs is taken: when there is nothing else, or it waited long.
    warm_models: str | None = None
    #: What all models of the worker may take together, in bytes or as `12GiB`; by default half of
    #: the machine's memory, or seven tenths of the GPU's.
    model_memory: ByteSize | None = Field(default=None, ge=1)
    #: Jobs that the engine may hold at once.
    worker_slots: int = Field(default=8, ge=1, le=256)
    #: What adapters may take in memory, in MiB, and how many are kept there.
    adapter_memory_mb: int = Field(default=512, ge=1, le=1_048_576)
    max_adapters: int = Field(default=64, ge=4, le=10_000)
    #: How long a worker may be silent before its jobs run elsewhere, in seconds.
    lease_s: float = Field(default=15.0, ge=1.0, le=600.0)
    #: How often the state of running jobs is stored, in seconds: what a crash costs at most.
    checkpoint_s: float = Field(default=5.0, ge=0.1, le=3600.0)
    #: How long a worker has to leave after SIGTERM, in seconds.
    grace_s: float = Field(default=8.0, ge=1.0, le=600.0)
    #: How long one forward may take before the worker ends itself, in seconds.
    stall_s: float = Field(default=300.0, ge=1.0, le=86_400.0)


class DispatcherSettings(
    DatabaseSettings,
    RedisSettings,
    StorageSettings,
    CatalogSettings,
    WebhookSettings,
    MetricsSettings,
    TracingSettings,
    CrashSettings,
):
    """Everything that `latentq dispatcher` reads."""

    #: After how long a message that nobody claimed is sent again, in seconds.
    redispatch_s: float = Field(default=5.0, ge=0.5, le=600.0)
    #: How long a job that has ended is kept, with its prompt and results, in seconds.
    retention_s: float = Field(default=86_400.0, ge=1.0, le=MAX_RETENTION_S)
    #: How long an upload is kept that no waiting or running job needs, in seconds. The least is
    #: more than storing one may take.
    upload_retention_s: float = Field(default=86_400.0, ge=600.0, le=MAX_RETENTION_S)


class DoctorSettings(DatabaseSettings, RedisSettings, StorageSettings, CatalogSettings):
    """Everything that `latentq doctor` looks at."""


class BackupSettings(DatabaseSettings, StorageSettings):
    """Everything that `latentq backup` copies."""


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
    name = f"{PREFIX}{str(first['loc'][0]).upper()}"
    if first["type"] == "missing":
        return f"set {name} (or {name}_FILE)"
    return f"{name}: {first['msg']}"
