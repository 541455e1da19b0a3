"""Where log lines go: one set-up for every command, as text or JSON, without secrets.

All of us and of the libraries log through the standard library, and structlog's processors make
the lines. A thread writes them: whoever reads the log and stalls must not stall the server. Lines
that find no room meanwhile are dropped and counted.
"""

from __future__ import annotations

import atexit
import copy
import logging
import queue
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TextIO

import orjson
import structlog
from structlog.stdlib import ProcessorFormatter

from web.redaction import Redaction, secrets_of
from web.request_ids import client_request_id, current_request_id

if TYPE_CHECKING:
    from web.settings import Settings

log = logging.getLogger(__name__)

Form = Literal["text", "json"]
CHATTY = (
    "alembic",
    "asyncio",
    "ccxt",
    "sqlalchemy",
    "taskiq",
    "urllib3",
    "uvicorn",
    "websockets",
)
"""Libraries that are heard from `warning` on only, whatever the level is.

Some of them would quote what clients send, what venues are sent, or what rows hold.
"""
_ROOM = 2_000
"""Lines that wait to be written."""
_END_SECONDS = 1.0
"""How long the last lines may keep a process from ending."""
_META = ("_record", "_from_structlog", "message", "asctime")
"""What structlog keeps beside a line, and what other handlers leave on a record."""
_FIRST = ("time", "level", "logger", "event")
# What moves a terminal's cursor, or is a line's end to some.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

_Event = MutableMapping[str, Any]


def log_to_stderr(settings: Settings, *, quiet: bool = False) -> None:
    """Log to standard error as *settings* say, until the process ends.

    *quiet* leaves out what is only informative, unless more than that was asked for.
    """
    level = "warning" if quiet and settings.log_level == "info" else settings.log_level
    known = tuple(secrets_of(settings))
    logging_there = logging_to(sys.stderr, level=level, form=settings.log_form, known=known)
    logging_there.__enter__()
    atexit.register(logging_there.__exit__, None, None, None)


@contextmanager
def logging_to(
    stream: TextIO, *, level: str, form: Form, known: Iterable[str] = ()
) -> Iterator[None]:
    """Write to *stream* what is of *level* or worse; *known* secrets are in none of it."""
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in CHATTY}
    before, writer = root.level, _Writer(stream, _formatter(form, Redaction(known)))
    handing = _Handing(writer)
    root.addHandler(handing)
    root.setLevel(level.upper())
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    try:
        with _uncaught():
            yield
    finally:
        structlog.reset_defaults()
        logging.captureWarnings(False)
        root.removeHandler(handing)
        root.setLevel(before)
        for name, each in levels.items():
            logging.getLogger(name).setLevel(each)
        writer.close()


class _Writer:
    """A thread that writes records to *stream*, as far as that takes them."""

    def __init__(self, stream: TextIO, formatter: logging.Formatter) -> None:
        self._stream = stream
        self._formatter = formatter
        # What the garbage collector ends may log in the middle of a `put`, which this one allows.
        self._waiting: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
        self._dropped = self._written = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, record: logging.LogRecord) -> None:
        """Have *record* written soon; drop it where too many wait."""
        if self._waiting.qsize() < _ROOM:
            self._waiting.put(record)
        else:
            self._dropped += 1

    def close(self) -> None:
        """Write what waits, for as long as lines are taken."""
        self._waiting.put(None)
        written = -1
        while self._thread.is_alive() and written != self._written:
            written = self._written
            self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        while (record := self._waiting.get()) is not None:
            self._write(record)
            if self._dropped and self._waiting.qsize() < _ROOM // 2:
                dropped, self._dropped = self._dropped, 0
                self._write(_record(logging.WARNING, f"{dropped} lines found no room here"))

    def _write(self, record: logging.LogRecord) -> None:
        try:
            line = self._formatter.format(record)
        except Exception as error:  # what it would say of itself is not redacted
            said = f"a line of {record.name} could not be written ({type(error).__name__})"
            line = self._formatter.format(_record(logging.ERROR, said))
        with suppress(OSError, ValueError):  # nobody reads any more
            self._stream.write(f"{line}\n")
            self._stream.flush()
        self._written += 1


class _Handing(logging.Handler):
    """Hands records to *writer*, as they are when they are made."""

    def __init__(self, writer: _Writer) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        handed = copy.copy(record)
        if not isinstance(record.msg, dict):  # as structlog's own loggers say it
            try:
                handed.msg = record.getMessage()
            except Exception:  # arguments that do not fit must not undo what logged
                handed.msg = str(record.msg)
            handed.args = None
        for name, found in (
            ("request_id", current_request_id()),
            ("client_request_id", client_request_id()),
        ):
            if found is not None:
                setattr(handed, name, found)
        self._writer.put(handed)


def _record(level: int, message: str) -> logging.LogRecord:
    return log.makeRecord(log.name, level, __file__, 0, message, (), None)


def _formatter(form: Form, redaction: Redaction) -> logging.Formatter:
    render = structlog.processors.JSONRenderer(serializer=_json) if form == "json" else _text
    return ProcessorFormatter(
        processors=[
            structlog.stdlib.ExtraAdder(),
            structlog.processors.format_exc_info,  # never with the values of variables
            _facts,
            redaction,
            render,
        ]
    )


def _facts(_logger: Any, _method: str, event: _Event) -> _Event:
    """Put what every line has before what is its own."""
    record: logging.LogRecord = event["_record"]
    at = datetime.fromtimestamp(record.created, UTC)
    own = {name: value for name, value in event.items() if name not in {*_META, *_FIRST}}
    return {
        "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": event["event"],
        **own,
        "pid": record.process,
    }


def _json(event: Mapping[str, Any], **_options: Any) -> str:
    return _CONTROL.sub(_escaped, orjson.dumps(event).decode())


def _text(_logger: Any, _method: str, event: _Event) -> str:
    """Return *event* as people read it. What it quotes cannot look like another line."""
    own = {
        name: value
        for name, value in event.items()
        if name not in {*_FIRST, "pid", "exception", "stack"}
    }
    said = [str(event["event"]), *(f"{name}={value}" for name, value in own.items())]
    lines = [f"{event['time']} {event['level'].upper()} {event['logger']}: {' '.join(said)}"]
    lines += [str(event[name]) for name in ("exception", "stack") if name in event]
    return _CONTROL.sub(_escaped, "\n".join(lines).rstrip("\n").replace("\n", "\n    "))


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


@contextmanager
def _uncaught() -> Iterator[None]:
    """Log what nothing catches, which Python would print as it is."""
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook

    def ended(kind: type[BaseException], failure: BaseException, trace: Any) -> None:
        if issubclass(kind, KeyboardInterrupt):
            hooks[0](kind, failure, trace)
        else:
            log.critical("The process ends", exc_info=(kind, failure, trace))

    def thread_ended(told: threading.ExceptHookArgs) -> None:
        log.error("A thread ended", exc_info=told.exc_value)

    def unraisable(told: sys.UnraisableHookArgs) -> None:
        log.error("A failure could not be raised", exc_info=told.exc_value)

    sys.excepthook, threading.excepthook, sys.unraisablehook = ended, thread_ended, unraisable
    try:
        yield
    finally:
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
