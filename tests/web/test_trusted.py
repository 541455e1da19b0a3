"""Trusted documents: what is on the list is answered, and nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import strawberry

from web.documents import Documents
from web.graphql_request import BadRequest, GraphQLRequest
from web.persisted import PersistedQueryNotFound
from web.settings import WrongSettings
from web.trusted import DocumentNotTrusted, TrustedDocuments, trusted_documents

KNOWN, OTHER = "{ hello }", "{ hello __typename }"


@strawberry.type
class Query:
    hello: str = "hello"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def asked(text: str | None, of: str | None = None) -> GraphQLRequest:
    named = {"persistedQuery": {"version": 1, "sha256Hash": of}} if of else None
    return GraphQLRequest(query=text, operation_name=None, variables=None, extensions=named)


def opened(path: Path, content: object) -> TrustedDocuments:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return trusted_documents(path, Documents(), strawberry.Schema(Query)._schema)


@pytest.fixture
def trusted(tmp_path: Path) -> TrustedDocuments:
    return opened(tmp_path / "list.json", {digest(KNOWN): KNOWN})


async def test_a_document_on_the_list_is_found_by_text_and_by_digest(
    trusted: TrustedDocuments,
) -> None:
    for request in (asked(KNOWN), asked(None, digest(KNOWN)), asked(KNOWN, digest(KNOWN))):
        assert await trusted.resolve(request) == (KNOWN, None)


async def test_no_other_document_is_answered(trusted: TrustedDocuments) -> None:
    with pytest.raises(DocumentNotTrusted) as refused:
        await trusted.resolve(asked(OTHER))
    assert (refused.value.code, refused.value.status) == ("FORBIDDEN", 403)
    with pytest.raises(PersistedQueryNotFound):
        await trusted.resolve(asked(None, digest(OTHER)))
    with pytest.raises(PersistedQueryNotFound):
        await trusted.resolve(asked(OTHER, digest(OTHER)))
    with pytest.raises(BadRequest):
        await trusted.resolve(asked(OTHER, digest(KNOWN)))
    with pytest.raises(BadRequest):
        await trusted.resolve(asked(None))


async def test_clients_add_nothing_to_the_list(trusted: TrustedDocuments) -> None:
    await trusted.register(digest(OTHER), OTHER)

    with pytest.raises(DocumentNotTrusted):
        await trusted.resolve(asked(OTHER))


async def test_digests_may_say_how_they_were_made(tmp_path: Path) -> None:
    trusted = opened(tmp_path / "list.json", {f"sha256:{digest(KNOWN)}": KNOWN})

    assert await trusted.resolve(asked(None, digest(KNOWN))) == (KNOWN, None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no JSON", "JSON"),
        ([KNOWN], "object"),
        ({digest(KNOWN): 1}, "object"),
        ({digest(OTHER): KNOWN}, "not the SHA-256"),
        ({"Hello": KNOWN}, "not the SHA-256"),
        ({digest("{"): "{"}, "not valid"),
        ({digest("{ nothing }"): "{ nothing }"}, "not valid"),
    ],
)
def test_a_list_that_cannot_be_kept_is_refused_at_the_start(
    tmp_path: Path, content: object, words: str
) -> None:
    with pytest.raises(WrongSettings, match=words) as refused:
        opened(tmp_path / "list.json", content)

    assert str(refused.value).startswith("TRUSTED_DOCUMENTS=")
