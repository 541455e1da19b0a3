"""Log lines: as text and as JSON, each on its own, without secrets, and never in the way."""

from __future__ import annotations

import contextvars
import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog

from tests.db.embedded.processes import CHECKOUT
from tests.web.serving import environment
from web.logs import Form, logging_to
from web.request_ids import begin_operation, begin_request, go_on_as

SECRET = "canary-AbCdEf123456"
log = logging.getLogger("tests.logs")
FORMS: tuple[Form, ...] = ("text", "json")


@contextmanager
def written(form: Form = "json", *, level: str = "debug", **more: Any) -> Iterator[io.StringIO]:
    """What was logged inside the block, once it is over."""
    stream = io.StringIO()
    with logging_to(stream, level=level, form=form, **more):
        yield stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return the lines of ours."""
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in found if line["logger"] == log.name]


def test_a_line_of_json_says_when_how_bad_who_and_what() -> None:
    with written() as stream:
        log.warning("%d bars of %s", 3, "BTC/USDT", extra={"provider": "sim"})

    (line,) = lines(stream)
    assert (line["level"], line["event"]) == ("warning", "3 bars of BTC/USDT")
    assert line["provider"] == "sim"
    assert line["time"].endswith("Z")
    assert isinstance(line["pid"], int)
    assert "request_id" not in line


def test_a_line_of_text_says_the_same() -> None:
    with written("text") as stream:
        log.warning("%d bars", 3, extra={"provider": "sim"})

    time, rest = stream.getvalue().split(" ", 1)
    assert time.endswith("Z")
    assert rest == "WARNING tests.logs: 3 bars provider=sim\n"


def test_structlogs_own_loggers_and_warnings_go_the_same_way() -> None:
    with written() as stream:
        structlog.get_logger(log.name).info("%s came", "ada", password=SECRET, many=2)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(f"token={SECRET}", stacklevel=1)

    (line,) = lines(stream)
    assert (line["event"], line["many"], line["password"]) == ("ada came", 2, "***")
    assert "py.warnings" in stream.getvalue()
    assert SECRET not in stream.getvalue()


def test_the_level_says_what_is_left_out_and_libraries_are_quiet() -> None:
    with written(level="info") as stream:
        log.debug("too small")
        logging.getLogger("sqlalchemy.engine").info("SELECT 1")
        logging.getLogger("uvicorn.error").warning("odd")
        log.info("told")

    told = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert told == ["odd", "told"]


def test_nothing_is_left_behind_afterwards() -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers), sys.excepthook, threading.excepthook)

    with written():
        pass

    assert (root.level, list(root.handlers), sys.excepthook, threading.excepthook) == before


@pytest.mark.parametrize("form", FORMS)
def test_no_secret_of_a_traceback_is_told_nor_the_values_of_its_variables(form: Form) -> None:
    def fail(password: str, inner: str) -> None:
        try:
            raise ValueError(f"cannot open postgresql://u:{password}@db/x")
        except ValueError as error:
            raise RuntimeError(f"no answer to {inner}") from error

    with written(form, known=[f"known-{SECRET}"]) as stream:
        try:
            fail(SECRET, f"known-{SECRET}")
        except RuntimeError:
            log.exception("It failed for %s", f"Bearer {SECRET}")

    told = stream.getvalue()
    assert SECRET not in told
    assert "RuntimeError: no answer to ***" in told
    assert "ValueError" in told
    assert "in fail" in told


@pytest.mark.parametrize("form", FORMS)
def test_what_a_line_quotes_cannot_look_like_another_line(form: Form) -> None:
    forged = "x\n2026-01-01T00:00:00.000Z ERROR bank: all gone\r\x1b[2J\u2028"

    with written(form) as stream:
        log.info("no symbol %s", forged, extra={"name_of": forged})
        try:
            raise ValueError(forged)
        except ValueError:
            log.exception("failed")

    told = stream.getvalue()
    assert not {"\r", "\x1b", "\u2028"} & set(told)
    begun = [line for line in told.splitlines() if not line.startswith("    ")]
    assert len(begun) == 2


def test_arguments_that_do_not_fit_undo_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own would raise

    class Broken:
        def __str__(self) -> str:
            raise OSError(SECRET)

    with written() as stream:
        log.info("%d bars", "many")
        log.info("%s and", Broken())
        log.info("then", extra={"broken": Broken()})

    assert [line["event"] for line in lines(stream)] == ["%d bars", "%s and"]
    assert "a line of tests.logs could not be written (OSError)" in stream.getvalue()
    assert capsys.readouterr().err == ""


class Stuck(io.StringIO):
    """Takes nothing until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.goes_on = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        self.goes_on.wait()
        return super().write(text)


def test_a_reader_that_stalls_holds_nobody_up_and_what_was_dropped_is_counted() -> None:
    stream = Stuck()
    with logging_to(stream, level="info", form="json"):
        log.info("first")
        stream.reached.wait()
        for number in range(5_000):
            log.info("%d", number)
        stream.goes_on.set()

    told = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    kept = [line for line in told if line.isdigit()]
    (dropped,) = (line for line in told if line.endswith("lines found no room here"))
    assert told[0] == "first"
    assert kept == [str(number) for number in range(len(kept))]
    assert len(kept) + int(dropped.split()[0]) == 5_000


def test_a_reader_that_has_left_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    stream.close()

    with logging_to(stream, level="info", form="json"):
        log.info("told to nobody")

    assert capsys.readouterr().err == ""


def test_each_line_carries_the_request_that_was_worked_on_when_it_was_logged() -> None:
    with written() as stream:

        def asked() -> str:
            named = begin_request(b"front-7")
            log.info("asked")
            return named

        def over_a_socket() -> str:
            socket = begin_request()
            begin_operation(2)
            log.info("operation")
            return socket

        def job() -> None:
            go_on_as("job-1")
            log.info("job")

        request, socket = _alone(asked), _alone(over_a_socket)
        _alone(job)
        log.info("nobody's")

    first, second, third, last = lines(stream)
    assert (first["request_id"], first["client_request_id"]) == (request, "front-7")
    assert second["request_id"] == f"{socket}-2"
    assert third["request_id"] == "job-1"
    assert "request_id" not in last


def _alone(work: Any) -> Any:
    """Do *work* as a task of its own would."""
    return contextvars.Context().run(work)


FAILING = """
import logging, threading
from web.commands.base import log_to_terminal
from web.settings import load_settings
log_to_terminal(load_settings())
thread = threading.Thread(target=lambda: 1 / 0)
thread.start(); thread.join()
logging.getLogger("ours").info("up")
raise ValueError("postgresql://u:{secret}@db, and {known}")
"""


def test_what_nothing_catches_is_logged_too_and_the_last_line_is_not_lost() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FAILING.format(secret=SECRET, known=f"known-{SECRET}")],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env=environment(log_format="json", redis_url=f"redis://:known-{SECRET}@localhost"),
    )

    told = [json.loads(line) for line in ended.stderr.splitlines()]
    assert ended.returncode == 1
    assert [line["event"] for line in told] == ["A thread ended", "up", "The process ends"]
    assert "ZeroDivisionError" in told[0]["exception"]
    assert "ValueError" in told[2]["exception"]
    assert SECRET not in ended.stderr
