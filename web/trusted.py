"""Trusted documents: those of one file are answered, and no others.

The file is what front-end builds write: a JSON object of documents by the SHA-256 of their text. A
client sends the digest, as for automatic persisted queries, or the text itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from graphql import GraphQLError, GraphQLSchema, specified_rules

from resolvers.callers import ANYBODY, Caller
from web.documents import Documents
from web.graphql_request import BadRequest, GraphQLRequest, RequestRefused
from web.persisted import SHA256, PersistedQueryNotFound, requested_digest
from web.settings import WrongSettings


class DocumentNotTrusted(RequestRefused):
    """A document that is not on the list."""

    code = "FORBIDDEN"
    status: ClassVar[int] = 403

    def __init__(self) -> None:
        super().__init__("Only documents that this server was given are answered.")


class TrustedDocuments:
    """The documents that may be executed, by digest. Stands in for `PersistedQueries`."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._by_digest = dict(texts)
        self._texts = frozenset(texts.values())

    async def resolve(self, asked: GraphQLRequest) -> tuple[str, None]:
        """Return the text that *asked* means.

        Raises `PersistedQueryNotFound` for a digest and `DocumentNotTrusted` for a text that is not
        on the list, and `BadRequest` where there is neither.
        """
        digest = requested_digest(asked.extensions)
        if digest is not None:
            text = self._by_digest.get(digest)
            if text is None:
                raise PersistedQueryNotFound
            if asked.query is not None and asked.query != text:
                raise BadRequest("The provided sha256Hash does not match the query.")
            return text, None
        if asked.query is None:
            raise BadRequest("Must provide a `query`.")
        if asked.query not in self._texts:
            raise DocumentNotTrusted
        return asked.query, None

    async def register(self, digest: str, text: str, caller: Caller = ANYBODY) -> None:
        """Clients add nothing to the list."""


def trusted_documents(path: Path, documents: Documents, schema: GraphQLSchema) -> TrustedDocuments:
    """Return the documents in the file at *path*, each of which the server can answer.

    Raises `WrongSettings` for a file of another form, a text that is not that of its digest, and a
    document that is not valid: it would fail for every user.
    """

    def refuse(why: str) -> WrongSettings:
        return WrongSettings(f"TRUSTED_DOCUMENTS={path}: {why}")

    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise refuse(f"cannot be read as JSON: {type(error).__name__}.") from None
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise refuse("must be an object of documents by their SHA-256.")
    texts: dict[str, str] = {}
    for name, text in found.items():
        digest = name.removeprefix("sha256:").lower()
        if not SHA256.fullmatch(digest) or hashlib.sha256(text.encode()).hexdigest() != digest:
            raise refuse(f"{name[:80]!r} is not the SHA-256 of its document.")
        try:
            documents.parse(text)
            wrong = documents.validate(schema, text, tuple(specified_rules))
        except GraphQLError as error:
            wrong = [error]
        if wrong:
            raise refuse(f"document {digest[:12]} is not valid: {wrong[0].message}")
        texts[digest] = text
    return TrustedDocuments(texts)
