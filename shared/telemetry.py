"""Logs of all processes: one JSON object a line on standard error, an event and its fields."""

import logging
import sys

import structlog
from opentelemetry.trace import format_trace_id, get_current_span
from structlog.typing import EventDict, Processor, WrappedLogger

#: Fields that may hold personal data and are never written, whoever logs them.
PRIVATE_FIELDS = frozenset({"prompt", "negative_prompt", "api_key", "authorization", "body"})


def configure_logging(process: str, *, level: int = logging.INFO) -> None:
    """Send structlog's and all libraries' records to standard error as JSON."""

    def add_process(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_process,
        _add_trace,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _drop_private_fields,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    # These announce every request or message at INFO.
    for chatty in (
        "alembic",
        "httpx",
        "botocore",
        "boto3",
        "urllib3",
        "celery.app.trace",
        "celery.worker.strategy",
        "kombu",
    ):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    context = get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format_trace_id(context.trace_id)
    return event


def _drop_private_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name in PRIVATE_FIELDS & event.keys():
        event[name] = "[private]"
    return event
