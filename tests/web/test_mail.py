"""Mail: to a server or into a folder, in the background, without its token in any log."""

from __future__ import annotations

import asyncio
import email
import email.policy
import logging
import stat
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from market.clock import FixedClock
from resolvers.identity.letters import api_token_created
from resolvers.identity.principal import Mail
from tests.accounts import START_MS
from tests.web.live.stage import until
from web import mail as mail_module
from web.mail import Delivery, FolderDelivery, Post, SmtpDelivery

TOKEN = "canary-token-in-a-mail"
LETTER = Mail("ada@example.com", "Set a new password", SecretStr(f"https://h/#token={TOKEN}\n"))
LATE = replace(LETTER, to="late@example.com")


@asynccontextmanager
async def posting(delivery: Delivery):
    post = Post(delivery, sender="Bargraph <bars@example.com>", clock=FixedClock(START_MS))
    running = asyncio.create_task(post.run())
    try:
        yield post
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class SmtpServer:
    """A mail server of one client at a time, that refuses *refusals* mails before it takes one.

    It answers *rcpt* to a recipient whose name begins with "late", and takes more than ASCII if it
    is *eight_bit*.
    """

    def __init__(
        self, *, refusals: int = 0, code: int = 451, rcpt: int = 250, eight_bit: bool = False
    ) -> None:
        self.refusals = refusals
        self.code = code
        self.rcpt = rcpt
        self.offers = b"250-8BITMIME\r\n" if eight_bit else b""
        self.taken: list[bytes] = []
        self.refused: list[bytes] = []
        self.said: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 test\r\n")
        while line := await reader.readline():
            self.said.append(line)
            word = line.strip().upper().partition(b" ")[0]
            if word == b"EHLO":
                writer.write(b"250-test\r\n" + self.offers + b"250 AUTH PLAIN\r\n")
            elif word == b"DATA":
                writer.write(b"354 go on\r\n")
                message = await reader.readuntil(b"\r\n.\r\n")
                if self.refusals:
                    self.refusals -= 1
                    self.refused.append(message)
                    writer.write(b"%d ada@example.com not now\r\n" % self.code)
                else:
                    self.taken.append(message)
                    writer.write(b"250 taken\r\n")
            elif word == b"RCPT" and b"<late@" in line:
                writer.write(b"%d late@example.com come again\r\n" % self.rcpt)
            elif word == b"QUIT":
                writer.write(b"221 bye\r\n")
                break
            else:
                writer.write(b"250 ok\r\n")
            await writer.drain()
        writer.close()


@asynccontextmanager
async def smtp(server: SmtpServer, host: str = "127.0.0.1"):
    listening = await asyncio.start_server(server.serve, host, 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield SecretStr(f"smtp://127.0.0.1:{port}")


def recipients(server: SmtpServer) -> list[str]:
    return [str(email.message_from_bytes(message)["To"]) for message in server.taken]


async def test_a_mail_reaches_the_server_as_it_was_written() -> None:
    server = SmtpServer()
    async with smtp(server) as url, posting(SmtpDelivery(url)) as post:
        post.post(LETTER)
        await post.drain(5)

    message = email.message_from_bytes(server.taken[0], policy=email.policy.default)
    assert message["To"] == "ada@example.com"
    assert message["From"] == "Bargraph <bars@example.com>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert f"#token={TOKEN}" in message.get_content()


@pytest.mark.parametrize("eight_bit", [False, True])
async def test_a_mail_in_other_letters_reaches_every_server_whole(eight_bit: bool) -> None:
    server = SmtpServer(eight_bit=eight_bit)
    async with smtp(server) as url, posting(SmtpDelivery(url)) as post:
        post.post(api_token_created("ada@example.com", "café 株価"))
        post.post(LETTER)
        await post.drain(5)

    warning, other = server.taken
    told = email.message_from_bytes(warning, policy=email.policy.default).get_content()
    assert "café 株価" in told.splitlines()
    assert f"#token={TOKEN}".encode() in other
    assert eight_bit is not warning.isascii()


async def test_a_mail_not_taken_at_first_is_sent_again_and_the_log_quotes_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mail_module, "_PAUSES", (0.0, 0.0))
    caplog.set_level(logging.DEBUG)
    server = SmtpServer(refusals=2)
    async with smtp(server) as url, posting(SmtpDelivery(url)) as post:
        post.post(LETTER)
        await until(lambda: bool(server.taken))

    assert len(server.taken) == 1
    assert "not taken" in caplog.text
    assert TOKEN not in caplog.text
    assert "ada@example.com" not in caplog.text


async def test_one_that_is_never_taken_is_given_up_and_the_next_one_goes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mail_module, "_PAUSES", (0.0,))
    server = SmtpServer(rcpt=450)
    async with smtp(server) as url, posting(SmtpDelivery(url)) as post:
        post.post(LATE)
        await until(lambda: "given up" in caplog.text)
        post.post(LETTER)
        await post.drain(5)

    assert recipients(server) == ["ada@example.com"]
    assert caplog.text.count("not taken") == caplog.text.count("given up") == 1


@pytest.mark.parametrize("server", [SmtpServer(rcpt=550), SmtpServer(refusals=1, code=554)])
async def test_one_that_is_refused_for_good_is_not_tried_again(
    server: SmtpServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with smtp(server) as url, posting(SmtpDelivery(url)) as post:
        post.post(LATE)
        await until(lambda: "given up" in caplog.text)

    assert server.taken == []
    assert "not taken" not in caplog.text


@pytest.mark.parametrize("server", [SmtpServer(rcpt=450), SmtpServer(refusals=1)])
async def test_one_that_is_refused_for_now_holds_nobody_up_and_goes_later(
    server: SmtpServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail_module, "_PAUSES", (3_600.0,))
    async with smtp(server) as url, posting(SmtpDelivery(url)) as post:
        post.post(LATE)
        await until(lambda: "not taken" in caplog.text)
        post.post(LETTER)
        post.post(LETTER)
        await until(lambda: len(server.taken) == 2)
        server.rcpt = 250
        await post.drain(5)  # a server that ends tries everything once more

    assert recipients(server) == ["ada@example.com", "ada@example.com", "late@example.com"]
    assert "given up" not in caplog.text


async def test_a_mail_is_the_same_one_at_each_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_module, "_PAUSES", (0.0,))
    server = SmtpServer(refusals=1)
    async with smtp(server) as url, posting(SmtpDelivery(url)) as post:
        post.post(LETTER)
        await until(lambda: bool(server.taken))

    first, second = (email.message_from_bytes(each) for each in (*server.refused, *server.taken))
    assert first["Message-ID"] == second["Message-ID"]


async def test_where_too_many_wait_to_be_tried_again_more_are_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mail_module, "_MOST_DEFERRED", 2)
    server = SmtpServer(rcpt=450)
    async with smtp(server) as url, posting(SmtpDelivery(url)) as post:
        for waiting in (1, 2):
            post.post(LATE)
            await until(lambda waiting=waiting: caplog.text.count("not taken") == waiting)
        post.post(LATE)
        await until(lambda: "given up" in caplog.text)

    assert caplog.text.count("not taken") == 2


async def test_a_mail_that_cannot_be_written_is_given_up_and_the_next_one_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with posting(FolderDelivery(tmp_path)) as post:
        post.post(Mail("ada@example.com\nBcc: all@example.com", "Subject", SecretStr(TOKEN)))
        post.post(LETTER)
        await post.drain(5)

    (path,) = tmp_path.iterdir()
    assert "To: ada@example.com" in path.read_text()
    assert "given up" in caplog.text
    assert TOKEN not in caplog.text


async def test_a_server_elsewhere_is_told_nothing_without_tls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mail_module, "_PAUSES", ())
    server = SmtpServer()
    # 127.0.0.2 is this machine too, but not by a name that says so.
    async with smtp(server, "127.0.0.2") as url:
        elsewhere = SecretStr(
            url.get_secret_value().replace("//127.0.0.1", "//user:hunter2@127.0.0.2")
        )
        async with posting(SmtpDelivery(elsewhere)) as post:
            post.post(LETTER)
            await post.drain(5)

    assert server.taken == []
    assert not any(b"MAIL" in line.upper() or b"AUTH" in line.upper() for line in server.said)


async def test_without_a_server_a_mail_is_written_for_its_owner_and_the_log_says_where(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "mail"
    async with posting(FolderDelivery(folder)) as post:
        post.post(LETTER)
        await post.drain(5)

    (path,) = folder.iterdir()
    assert f"#token={TOKEN}" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert str(path) in caplog.text
    assert TOKEN not in caplog.text
    assert "ada" not in caplog.text


async def test_a_link_beside_other_letters_stays_in_one_piece_for_whoever_reads_the_file(
    tmp_path: Path,
) -> None:
    link = f"https://bars.example/reset-password#token={'aB3=' * 30}"
    async with posting(FolderDelivery(tmp_path)) as post:
        post.post(Mail("ada@example.com", "Größe", SecretStr(f"Für café:\n\n{link}\n")))
        await post.drain(5)

    (path,) = tmp_path.iterdir()
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert f"\n{link}\n" in path.read_text(encoding="utf-8")
    assert message["Subject"] == "Größe"
    assert message.get_content() == f"Für café:\n\n{link}\n"


async def test_the_folder_keeps_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_module, "_MOST_KEPT", 3)
    async with posting(FolderDelivery(tmp_path)) as post:
        for number in range(5):
            post.post(Mail("ada@example.com", f"Number {number}", SecretStr("text")))
        await post.drain(5)

    found = sorted(path.read_text().partition("Subject: ")[2][:8] for path in tmp_path.iterdir())
    assert found == ["Number 2", "Number 3", "Number 4"]


async def test_more_than_may_wait_are_dropped_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    post = Post(FolderDelivery(tmp_path), sender="a@example.com", clock=FixedClock(START_MS))

    for _ in range(1_001):
        post.post(LETTER)

    assert "dropped" in caplog.text
    assert TOKEN not in caplog.text


def test_a_mail_does_not_show_its_text() -> None:
    assert TOKEN not in repr(LETTER)
