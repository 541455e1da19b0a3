"""Send mail in the background: by SMTP, or into a folder where there is no server for it.

A mail waits in the process until it is sent; one that is lost is asked for again by its reader. Its
text holds a token, so it is in no log and in no queue outside the process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from heapq import heappop, heappush
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import aiosmtplib
from pydantic import SecretStr

from market.clock import Clock
from resolvers.identity.principal import Mail

log = logging.getLogger(__name__)

_MOST_WAITING = 1_000
_MOST_DEFERRED = 500
"""With more that wait, one that is refused is given up: the others need the room."""
_PAUSES = (1.0, 10.0, 60.0, 300.0, 900.0, 1_800.0)
"""Seconds between the tries of one mail. Servers that do not know us yet want some minutes."""
_FOR_GOOD = 500
"""From here on a reply of SMTP says that trying again is of no use."""
_SMTP_SECONDS = 20.0
_MOST_KEPT = 1_000


class Delivery(Protocol):
    """One way for a mail to go."""

    async def deliver(self, message: EmailMessage) -> None:
        """Send it, or raise `OSError` or an error of SMTP."""
        ...


@dataclass(order=True, slots=True)
class _Letter:
    """A mail on its way. *due* is when to try next, by the clock of the loop."""

    due: float
    number: int
    mail: Mail = field(compare=False)
    message_id: str = field(compare=False)
    tries: int = field(default=0, compare=False)


class Post:
    """Mails on their way, one at a time; a `Mailer`.

    One that is refused for now is tried again after a while, and the others go on meanwhile.
    """

    def __init__(self, delivery: Delivery, *, sender: str, clock: Clock) -> None:
        self._delivery = delivery
        self._sender = sender
        self._clock = clock
        self._waiting: list[_Letter] = []
        self._posted = 0
        self._left = 0
        """How many are not yet delivered or given up."""
        self._changed = asyncio.Event()
        self._all_gone = asyncio.Event()
        self._all_gone.set()
        self._ending = False

    def post(self, mail: Mail) -> None:
        """Send *mail* soon. With too many on their way it is dropped, which the log tells."""
        if self._left >= _MOST_WAITING:
            log.error("A mail was dropped: %d are on their way", _MOST_WAITING)
            return
        self._left += 1
        self._posted += 1
        self._all_gone.clear()
        # The same at each try: where an answer is lost, a mail that came twice is known as one.
        message_id = make_msgid(domain=self._sender.rpartition("@")[2].rstrip(">"))
        self._put(_Letter(_now(), self._posted, mail, message_id))

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            letter = await self._next()
            gone = True
            try:
                gone = await self._try(letter)
            except Exception as error:
                # One mail that cannot be written must not end the server. What is wrong with it
                # may quote it.
                log.error("A mail was given up (%s)", type(error).__name__)
            if gone:
                self._left -= 1
                if not self._left:
                    self._all_gone.set()

    async def drain(self, seconds: float) -> None:
        """Try each that waits once more, and return when that is done, or after *seconds*."""
        self._ending = True
        self._changed.set()
        try:
            await asyncio.wait_for(self._all_gone.wait(), seconds)
        except TimeoutError:
            log.error("%d mails were not delivered before the end", self._left)

    async def _next(self) -> _Letter:
        """Return the letter that is due first, once it is."""
        while True:
            wait = self._waiting[0].due - _now() if self._waiting else None
            if wait is not None and (wait <= 0 or self._ending):
                return heappop(self._waiting)
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()

    async def _try(self, letter: _Letter) -> bool:
        """Return whether that was the last try."""
        try:
            await self._delivery.deliver(self._message(letter))
        except (OSError, aiosmtplib.SMTPException) as error:
            # What a mail server answers may quote the address: its kind has to do.
            kind = type(error).__name__
            last = self._ending or letter.tries >= len(_PAUSES) or _is_for_good(error)
            if last or len(self._waiting) >= _MOST_DEFERRED:
                log.error("A mail was given up (%s)", kind)
                return True
            log.warning("A mail was not taken (%s)", kind)
            again = _now() + _PAUSES[letter.tries]
            self._put(replace(letter, due=again, tries=letter.tries + 1))
            return False
        return True

    def _put(self, letter: _Letter) -> None:
        heappush(self._waiting, letter)
        self._changed.set()

    def _message(self, letter: _Letter) -> EmailMessage:
        message, mail = EmailMessage(), letter.mail
        message["From"] = self._sender
        message["To"] = mail.to
        message["Subject"] = mail.subject
        message["Date"] = formatdate(self._clock.now() / 1000)
        message["Message-ID"] = letter.message_id
        message["Auto-Submitted"] = "auto-generated"
        text = mail.text.get_secret_value()
        # As it is, so that a link stays in one piece for whoever reads the file itself. A server
        # that takes ASCII alone is sent the same in base64.
        message.set_content(text, cte="7bit" if text.isascii() else "8bit")
        return message


def _now() -> float:
    return asyncio.get_running_loop().time()


def _is_for_good(error: Exception) -> bool:
    """Whether a mail server refused this mail, and will refuse it again."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        return all(refused.code >= _FOR_GOOD for refused in error.recipients)
    if isinstance(error, aiosmtplib.SMTPSenderRefused | aiosmtplib.SMTPDataError):
        return error.code >= _FOR_GOOD
    return False  # it was no answer, or one that its operator can change, as for a password


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
