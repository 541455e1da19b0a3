"""What people type, checked before it is kept: names, addresses, and free text."""

from __future__ import annotations

import re

from market.errors import BadInput

_USERNAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{1,30}[A-Za-z0-9])")
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL = rf"(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"{_LOCAL}@{_LABEL}(?:\.{_LABEL})+")
_LONGEST_EMAIL = 254


def checked_username(username: str) -> str:
    """Return *username* if it can be one: 3 to 32 letters, digits, dots, dashes, underscores.

    ASCII only, so that no two names look alike. Raises `BadInput`.
    """
    if not _USERNAME.fullmatch(username):
        raise BadInput(
            "A username has 3 to 32 letters, digits, '.', '-' or '_', and begins and ends with a "
            "letter or a digit.",
            field="username",
        )
    return username


def checked_email(email: str) -> str:
    """Return *email* if mail could be sent there. Raises `BadInput`.

    ASCII only: a domain of other letters is written as its `xn--` form.
    """
    if len(email) > _LONGEST_EMAIL or not _EMAIL.fullmatch(email):
        raise BadInput("This is no address that mail can be sent to.", field="email")
    return email


def checked_text(text: str, *, longest: int, field: str, lines: bool = False) -> str:
    """Return *text* if it can be shown and has at most *longest* characters; *lines*: several.

    Raises `BadInput`.
    """
    if len(text) > longest:
        raise BadInput(f"{field} has {len(text)} characters; at most {longest}.", field=field)
    for character in text:
        if not character.isprintable() and not (lines and character in "\n\t"):
            raise BadInput(f"{field} has characters that cannot be shown.", field=field)
    return text


def checked_name(text: str, *, longest: int, field: str) -> str:
    """Return *text* if it can name something: neither empty nor with space around it."""
    if not text or text != text.strip():
        raise BadInput(f"{field} is empty, or has space around it.", field=field)
    return checked_text(text, longest=longest, field=field)
