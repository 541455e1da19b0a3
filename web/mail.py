"""Send mail in the background: by SMTP, or into a folder where there is no server for it.

A mail waits in the process until it is sent; one that is lost is asked for again by its reader. Its
text holds a token, so it is in no log and in no queue outside the process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import aiosmtplib
from pydantic import SecretStr

from market.clock import Clock
from resolvers.identity.principal import Mail

log = logging.getLogger(__name__)

_MOST_WAITING = 1_000
_PAUSES = (1.0, 5.0, 25.0)
"""Seconds between the tries of one mail."""
_SMTP_SECONDS = 20.0
_MOST_KEPT = 1_000


class Delivery(Protocol):
    """One way for a mail to go."""

    async def deliver(self, message: EmailMessage) -> None:
        """Send it, or raise `OSError` or an error of SMTP."""
        ...


class Post:
    """Mails on their way, one at a time; a `Mailer`."""

    def __init__(self, delivery: Delivery, *, sender: str, clock: Clock) -> None:
        self._delivery = delivery
        self._sender = sender
        self._clock = clock
        self._waiting: asyncio.Queue[Mail] = asyncio.Queue(_MOST_WAITING)

    def post(self, mail: Mail) -> None:
        """Send *mail* soon. With too many on their way it is dropped, which the log tells."""
        try:
            self._waiting.put_nowait(mail)
        except asyncio.QueueFull:
            log.error("A mail was dropped: %d are on their way", _MOST_WAITING)

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            mail = await self._waiting.get()
            try:
                await self._deliver(mail)
            except Exception as error:
                # One mail that cannot be written must not end the server. What is wrong with it
                # may quote it.
                log.error("A mail was given up (%s)", type(error).__name__)
            finally:
                self._waiting.task_done()

    async def drain(self, seconds: float) -> None:
        """Wait until all is delivered, no longer than *seconds*."""
        try:
            await asyncio.wait_for(self._waiting.join(), seconds)
        except TimeoutError:
            log.error("%d mails were not delivered before the end", self._waiting.qsize() + 1)

    async def _deliver(self, mail: Mail) -> None:
        message = self._message(mail)
        for pause in (*_PAUSES, None):
            try:
                await self._delivery.deliver(message)
            except (OSError, aiosmtplib.SMTPException) as error:
                # What a mail server answers may quote the address: its kind has to do.
                if pause is None or isinstance(error, aiosmtplib.SMTPRecipientsRefused):
                    log.error("A mail was given up (%s)", type(error).__name__)
                    return
                log.warning("A mail was not taken (%s)", type(error).__name__)
                await asyncio.sleep(pause)
            else:
                return

    def _message(self, mail: Mail) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = mail.to
        message["Subject"] = mail.subject
        message["Date"] = formatdate(self._clock.now() / 1000)
        message["Message-ID"] = make_msgid(domain=self._sender.rpartition("@")[2].rstrip(">"))
        message["Auto-Submitted"] = "auto-generated"
        # In this encoding a link stays in one piece for whoever reads the file itself.
        message.set_content(mail.text.get_secret_value(), cte="7bit")
        return message


@dataclass(frozen=True, slots=True)
class SmtpDelivery:
    """A mail server: `smtp://` turns to TLS before anything is said, `smtps://` begins with it.

    Only a server on this machine may be spoken to without TLS.
    """

    url: SecretStr

    async def deliver(self, message: EmailMessage) -> None:
        parts = urlsplit(self.url.get_secret_value())
        host = parts.hostname or "localhost"
        tls = parts.scheme == "smtps"
        local = host in {"localhost", "127.0.0.1", "::1"}
        await aiosmtplib.send(
            message,
            hostname=host,
            port=parts.port or (465 if tls else 587),
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            use_tls=tls,
            # None: if the server offers it.
            start_tls=False if tls else (None if local else True),
            timeout=_SMTP_SECONDS,
        )


@dataclass(frozen=True, slots=True)
class FolderDelivery:
    """A folder that only its owner reads; it keeps the newest 1000 mails. The log says where."""

    folder: Path

    async def deliver(self, message: EmailMessage) -> None:
        path = await asyncio.to_thread(self._write, message.as_bytes())
        log.info("There is no SMTP_URL: a mail is in %s", path)

    def _write(self, message: bytes) -> Path:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = sorted(self.folder.glob("*.eml"), key=lambda path: path.stat().st_mtime_ns)
        for old in kept[: max(0, len(kept) - _MOST_KEPT + 1)]:
            old.unlink(missing_ok=True)
        path = self.folder / f"{secrets.token_hex(8)}.eml"
        written = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(written, "wb") as file:
            file.write(message)
        return path
