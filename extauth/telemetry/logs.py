"""Logs: structlog's events, and the libraries' own lines, in one format on standard error."""

import logging

import structlog

from extauth.version import own_version


def configure_logs(level: str, *, json: bool, replica: str) -> None:
    """Send every log line to standard error, as a JSON object or as text for people.

    Each JSON object also holds the version and the name of the `replica`: lines of many are read in one place.
    """
    origin = {"version": own_version(), "replica": replica}

    def name_origin(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {**event, **origin}

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if json else structlog.processors.StackInfoRenderer(),
        *([name_origin] if json else []),
    ]
    # The default console traceback, where rich is installed, prints local variables: passwords among them.
    console = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    renderer = structlog.processors.JSONRenderer() if json else console
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer], foreign_pre_chain=shared
        )
    )
    logging.basicConfig(handlers=[handler], level="WARNING", force=True)
    logging.getLogger("extauth").setLevel(level.upper())
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def logger() -> structlog.stdlib.BoundLogger:
    """The service's logger."""
    return structlog.stdlib.get_logger("extauth")
