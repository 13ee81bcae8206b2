"""Settings of all processes, in groups that a process adds by inheriting them.

What they mean is shown in `docs/reference/configuration.md`, which `python -m evals.settings_page`
makes from here.
"""

from pathlib import Path
from typing import Self

from pydantic import ByteSize, Field, FilePath, SecretStr, model_validator

from shared.crash_point import CrashPoint
from shared.environment import PREFIX, Settings
from shared.hub import Hub
from shared.store_address import Addressing, StoreAddress

#: A hundred years: for ever, in seconds.
MAX_RETENTION_S = 3_155_760_000.0


class DatabaseSettings(Settings):
    """PostgreSQL, the truth."""

    database_url: SecretStr = Field(
        description="`postgresql://user:password@host:port/database`, with whatever "
        "[libpq](https://www.postgresql.org/docs/18/libpq-connect.html) takes: several hosts, "
        "`target_session_attrs`, `sslmode`."
    )


class RedisSettings(Settings):
    """Redis or Valkey, which carries hints."""

    redis_url: SecretStr = Field(
        description="`redis://:password@host:port/0`; `rediss://` for TLS, which is verified."
    )


class StorageSettings(Settings):
    """The S3-compatible store of results."""

    s3_endpoint: str | None = Field(
        default=None,
        description="URL of the store. Without it, AWS's own S3 of the region, which must then be "
        "given.",
    )
    s3_public_endpoint: str | None = Field(
        default=None,
        description="What clients reach the store by, where that differs: links are signed for it.",
    )
    s3_region: str = Field(default="us-east-1", description="The store's region.")
    s3_bucket: str = Field(default="latentq", description="The bucket, which must be there.")
    s3_addressing: Addressing | None = Field(
        default=None,
        description="Where URLs name the bucket: in their path or in their host; by default in the "
        "path, but in the host where there is no endpoint.",
    )
    s3_ca_bundle: FilePath | None = Field(
        default=None,
        description="A file of PEM certificates that the store's is checked against, in place of "
        "the usual authorities.",
    )
    s3_access_key: SecretStr = Field(description="Id of a key that may use the bucket.")
    s3_secret_key: SecretStr = Field(description="Its secret.")

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        # A forgotten endpoint must not send anything to AWS.
        if not self.s3_endpoint and "s3_region" not in self.model_fields_set:
            raise ValueError(
                f"set {PREFIX}S3_ENDPOINT; for AWS's own S3 leave it out and set {PREFIX}S3_REGION"
            )
        return self

    @property
    def store(self) -> StoreAddress:
        """Where the store is, and who we are there."""
        return StoreAddress(
            bucket=self.s3_bucket,
            access_key=self.s3_access_key.get_secret_value(),
            secret_key=self.s3_secret_key.get_secret_value(),
            region=self.s3_region,
            endpoint=self.s3_endpoint or None,
            public_endpoint=self.s3_public_endpoint or None,
            addressing=self.s3_addressing,
            ca_bundle=self.s3_ca_bundle,
        )


class CatalogSettings(Settings):
    """Which models exist, and where those from a hub are kept."""

    catalog: Path | None = Field(
        default=None,
        description="A [catalog file](catalog.md), the same everywhere; by default the models that "
        "come with LatentQ.",
    )
    model_folder: Path = Field(
        default=Path("~/.cache/latentq/models"), description="Folder for files from a hub."
    )
    hub_endpoint: str | None = Field(
        default=None, description="URL of the hub, if it is not the library's own."
    )
    hub_token: SecretStr | None = Field(
        default=None, description="Token of the hub, for closed repositories."
    )
    offline: bool = Field(
        default=False,
        description="Whether the hub is never asked: what is not in the folder cannot be served.",
    )

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

    webhook_allow_loopback: bool = Field(
        default=False,
        description="For development and tests: receivers on this machine, by plain HTTP too.",
    )


class MetricsSettings(Settings):
    """Where a process shows its metrics."""

    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65_535,
        description="Where `/metrics` is served; nowhere by default. Processes on one host need "
        "one each.",
    )
    metrics_host: str = Field(
        default="127.0.0.1",
        description="The address that it listens on, where nobody is asked for a key.",
    )


class TracingSettings(Settings):
    """Where traces go: OpenTelemetry's own variables, the others of which its SDK reads itself."""

    otlp_endpoint: str | None = Field(
        default=None,
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="Where an OTLP collector listens by HTTP; there are no traces unless it or the "
        "next is set.",
    )
    otlp_traces_endpoint: str | None = Field(
        default=None,
        validation_alias="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        description="The same for traces alone, with its whole path.",
    )

    @property
    def wants_traces(self) -> bool:
        """Whether somebody is there to take them."""
        return bool(self.otlp_endpoint or self.otlp_traces_endpoint)


class CrashSettings(Settings):
    """Tests only."""

    crash_at: CrashPoint | None = Field(default=None, description="Where the process dies.")


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

    link_ttl_s: int = Field(
        default=3600, ge=60, le=604_800, description="How long a presigned link works, in seconds."
    )
    openai: bool = Field(
        default=True, description="Whether OpenAI's Images API is spoken under `/openai/v1`."
    )
    replicate: bool = Field(
        default=True,
        description="Whether Replicate's predictions API is spoken under `/replicate/v1`.",
    )
    max_queue_depth: int = Field(
        default=100_000,
        ge=1,
        le=100_000_000,
        description="How many jobs may wait before submissions are refused with 503.",
    )


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

    device: str = Field(default="auto", description="`auto`, `cpu`, `cuda`, `cuda:N` or `mps`.")
    warm_models: str | None = Field(
        default=None,
        description="Catalog ids to load at the start, separated by commas; by default as many as "
        "fit. The others are loaded when a job of theirs is taken: when there is nothing else, or "
        "it waited long.",
    )
    model_memory: ByteSize | None = Field(
        default=None,
        ge=1,
        description="What all models of the worker may take together; by default half of the "
        "machine's memory, or seven tenths of the GPU's.",
    )
    worker_slots: int = Field(
        default=8, ge=1, le=256, description="Jobs that the engine may hold at once."
    )
    adapter_memory_mb: int = Field(
        default=512, ge=1, le=1_048_576, description="What adapters may take in memory, in MiB."
    )
    max_adapters: int = Field(
        default=64, ge=4, le=10_000, description="How many adapters are kept in memory."
    )
    lease_s: float = Field(
        default=15.0,
        ge=1.0,
        le=600.0,
        description="How long a worker may be silent before its jobs run elsewhere, in seconds.",
    )
    checkpoint_s: float = Field(
        default=5.0,
        ge=0.1,
        le=3600.0,
        description="How often the state of running jobs is stored, in seconds: what a crash costs "
        "at most.",
    )
    grace_s: float = Field(
        default=8.0,
        ge=1.0,
        le=600.0,
        description="How long a worker has to leave after SIGTERM, in seconds.",
    )
    stall_s: float = Field(
        default=300.0,
        ge=1.0,
        le=86_400.0,
        description="How long one forward may take before the worker ends itself, in seconds.",
    )


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

    redispatch_s: float = Field(
        default=5.0,
        ge=0.5,
        le=600.0,
        description="After how long a message that nobody claimed is sent again, in seconds.",
    )
    retention_s: float = Field(
        default=86_400.0,
        ge=1.0,
        le=MAX_RETENTION_S,
        description="How long a job that has ended is kept, with its prompt and results, in "
        "seconds.",
    )
    upload_retention_s: float = Field(
        default=86_400.0,
        # More than storing one may take.
        ge=600.0,
        le=MAX_RETENTION_S,
        description="How long an upload is kept that no waiting or running job needs, in seconds.",
    )


class DoctorSettings(DatabaseSettings, RedisSettings, StorageSettings, CatalogSettings):
    """Everything that `latentq doctor` looks at."""


class BackupSettings(DatabaseSettings, StorageSettings):
    """Everything that `latentq backup` copies."""


class ClientSettings(Settings):
    """Everything that the commands for callers read; their options win."""

    url: str | None = Field(
        default=None,
        description="Where the API is; by default that of the `latentq up` whose "
        "`.latentq/connection.json` lies here.",
    )
    api_key: SecretStr | None = Field(
        default=None, description="The key to send; by default as above."
    )
