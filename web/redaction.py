"""Take secrets out of what is logged: by the names of values, by their shape, and known ones.

Secrets are held in types that do not show them, so there should be none to find. This is for what
libraries say, and for what is written tomorrow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pydantic import BaseModel, SecretStr

HIDDEN = "***"
LONGEST = 20_000
"""Characters of one value; of a longer one the beginning and the end are kept."""
_SHORTEST_KNOWN = 6
"""Shorter ones would be found in ordinary words."""
_DEEPEST = 4
_MOST = 100
_LARGEST_INTEGER = 2**63

_NAMES = {
    *("authorization", "aux", "cookie", "credential", "credentials", "dsn", "key", "keys", "otp"),
    *("passphrase", "passwd", "password", "pin", "pwd", "secret", "secrets", "sign", "signature"),
    *("token", "tokens", "totp"),
}
_WORDS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")

# What may be long is taken whole and never given back (`*+`, `++`), and is not begun again within
# itself: so no text takes longer than in proportion to its length.
_NAME = (
    r"(?:passw(?:or)?d|passphrase|secret|token|(?:api|private|access|secret)[_-]?key"
    r"|(?<![a-z_])key|credential|totp|otp|pwd|signature"
    r"|(?<![a-z])(?:api|access)?sign|(?-i:(?<=[a-z])Sign))s?"
)
# A text in quotes ends where one stands behind no more backslashes than the one that opened it. So
# it is found in whatever quotes it in turn, and what it escapes itself belongs to it.
_QUOTED = (
    r"(?P<slashes>\\*+)(?P<quote>[\"'])"
    r"(?:[^\"'\\\r\n]++|\\*+(?!(?P=quote))[\"']|(?P=slashes)\\++(?P=quote)|\\++(?![\"']))*+"
    r"(?:\\*+(?P=quote))?"
)
_VALUE = rf"(?:[bru]{{1,2}}(?=\\*+[\"']))?(?:SecretStr\()?(?:{_QUOTED}|[^\s,;&()\[\]{{}}'\"]++)"
_MIXED = r"(?=[\w-]{0,42}\d)(?=[\w-]{0,42}[A-Z])(?=[\w-]{0,42}[a-z])"
# A private key in PEM, to its end or that of the text. It has lines, while what else has a name
# ends with its own: so it is looked for before that.
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
    r"[^-]*+(?:-(?!----)[^-]*+)*+(?:-----END [A-Z0-9 ]{0,50}-----)?"
)
_SHAPES: tuple[tuple[str, str], ...] = (
    # The password in a URL, to the last @ before its path.
    (r"(://[^\s/:@'\"]*+):(?:[^\s/'\"@]*+@)++", r"\1:***@"),
    # Headers, to the end of their line: they may have several parts.
    (r"(?i)((?:authorization|cookie)\\*+[\"']?\s{0,3}[:=,]\s{0,3})[^\r\n]++", r"\1***"),
    (r"(?i)\b(Bearer|Basic)\s{1,3}[^\s'\",;]++", r"\1 ***"),
    # A name and its value: `password=...`, `"apiKey": "..."`, `('token', b'...')`.
    (rf"(?i)({_NAME}\\*+[\"']?\s{{0,3}}(?:[:=]|(?<=[\"']),)\s{{0,3}}){_VALUE}", r"\1***"),
    # A JWT; tokens of ours.
    (
        r"(?<![\w-])((?:(?!eyJ)[\w-])*+)eyJ[\w-]{5,}+\.[\w-]{5,}+(?:\.[\w-]*+)?",
        rf"\1{HIDDEN}",
    ),
    (r"\b(bg[tr]_)[\w-]{8,}+", r"\1***"),
    # 32 random bytes in base64: keys of the server, and tokens in mails.
    (rf"(?<![\w-]){_MIXED}[\w-]{{43}}=?(?![\w=-])", HIDDEN),
)
_COMPILED = [(re.compile(shape), instead) for shape, instead in _SHAPES]


class Redaction:
    """A processor of structlog that leaves only plain values, without secrets.

    *known* are secrets that are to be found wherever they stand.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        forms = {
            form
            for secret in known
            for form in (secret, quote(secret, safe=""))
            if len(secret) >= _SHORTEST_KNOWN
        }
        longest_first = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def __call__(
        self, _logger: Any, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        return {str(name): self._of_name(str(name), value, 0) for name, value in event.items()}

    def text(self, text: str) -> str:
        """Return *text*, not longer than `LONGEST`, with what is or looks secret hidden."""
        # These first: cut in two, they would not be known.
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        text = _PEM.sub(HIDDEN, text)
        if len(text) > LONGEST:
            half = LONGEST // 2
            text = f"{text[:half]} ... {text[-half:]}"
        for shape, instead in _COMPILED:
            text = shape.sub(instead, text)
        # What is no text in UTF-8 cannot be written either.
        return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()

    def _of_name(self, name: str, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool) or not is_secret(name):
            return self._of(value, depth)
        return HIDDEN

    def _of(self, value: Any, depth: int) -> Any:
        match value:
            case None | bool() | float():
                return value
            case int():
                return value if abs(value) < _LARGEST_INTEGER else str(value)
            case str():
                return self.text(value)
            case Mapping() if depth < _DEEPEST:
                pairs = list(value.items())[:_MOST]
                return {
                    self.text(str(name)): self._of_name(str(name), each, depth + 1)
                    for name, each in pairs
                }
            case list() | tuple() | set() | frozenset() if depth < _DEEPEST:
                return [self._of(each, depth + 1) for each in list(value)[:_MOST]]
        return self.text(str(value))


@lru_cache(maxsize=1_000)
def is_secret(name: str) -> bool:
    """Whether what is called *name* is not for a log: one of its words says so."""
    return any(word.lower() in _NAMES for word in _WORDS.findall(name[:200]))


def secrets_of(settings: BaseModel) -> Iterator[str]:
    """Yield what is secret in *settings*: each whole, and what of it stands alone elsewhere."""
    for name in type(settings).model_fields:
        held = getattr(settings, name)
        if not isinstance(held, SecretStr):
            continue
        text = held.get_secret_value()
        if "://" not in text:
            yield from (part.strip() for part in text.split(","))
            continue
        yield text
        parts = urlsplit(text)
        written = parts.netloc.rpartition("@")[0].partition(":")[2]
        yield from (written, unquote(written), *parse_qs(parts.query).get("password", []))
