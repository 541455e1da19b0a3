"""Operations made up from the schema, by Schemathesis, meet a server that is never at a loss.

Each is one that the schema allows, or one that it does not, as literals or with variables, from a
stranger, a user or an admin. Mistakes and refusals have their codes; what has another is a bug.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from graphql import parse, print_ast
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.generation.case import Case
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import negative_data_rejection, response_schema_conformance

from db.accounts.permissions import Role
from tests.abuse.generated import made_likely, operations, takes_secrets, with_variables
from tests.abuse.target import Target, bearer
from tests.web.live.stage import PATIENCE

EXAMPLES = 12
CODES = {
    *("BAD_USER_INPUT", "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED", "COST_EXCEEDED"),
    *("UNAUTHENTICATED", "FORBIDDEN", "AMBIGUOUS_SYMBOL", "PROVIDER_UNAVAILABLE"),
}
"""What an answer may be refused with: mistakes, what costs too much, and who may not."""
INSIDE = ("Traceback", ".py", "asyncpg", "sqlalchemy", "postgresql:", "$argon2", "site-packages")
"""What a client has no business to read."""


@pytest.fixture(scope="module")
def http(development: Target) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=development.url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="module")
def sessions() -> dict[Role, str]:
    return {}


@pytest.fixture
def people(development: Target, http: httpx.Client, sessions: dict[Role, str]) -> dict[Role, str]:
    """The tokens of a user and an admin: other ones once theirs were used to sign out."""
    for role in (Role.USER, Role.ADMIN):
        if role not in sessions or me(http, sessions[role]) is None:
            sessions[role] = asyncio.run(development.session(role))
    return sessions


def me(http: httpx.Client, token: str) -> str | None:
    """Return the id of the owner of *token*, if it counts."""
    answer = http.post("/graphql", json={"query": "{ me { id } }"}, headers=bearer(token)).json()
    return answer["data"]["me"]["id"] if "data" in answer else None


@pytest.fixture
def ids(http: httpx.Client, people: dict[Role, str]) -> list[str]:
    """Ids of what there is: a market, a symbol and two people."""
    query = '{ markets { id } symbols(provider: "sim", first: 1) { nodes { id } } }'
    found = http.post("/graphql", json={"query": query}).json()["data"]
    theirs = [me(http, token) for token in people.values()]
    return [found["markets"][0]["id"], found["symbols"]["nodes"][0]["id"], *filter(None, theirs)]


@pytest.fixture(autouse=True)
def well(development: Target, http: httpx.Client) -> Iterator[None]:
    """Whatever is made up, the server answers afterwards, and found no bug in itself."""
    known = len(development.complaints())
    yield
    assert http.post("/graphql", json={"query": "{ markets { name } }"}).json()["data"]["markets"]
    assert development.complaints()[known:] == []


def accepted(answer: httpx.Response) -> None:
    """Fail if *answer* is not what GraphQL over HTTP allows, or tells of a bug."""
    assert answer.status_code in {200, 400, 401}, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    body = answer.json()
    assert body.keys() <= {"data", "errors", "extensions"}
    assert body.keys() & {"data", "errors"}
    assert body.get("errors") != []
    for error in body.get("errors", ()):
        assert error["extensions"]["code"] in CODES, error
        assert len(error["message"]) <= 1_000
    assert not [word for word in INSIDE if word in answer.text]


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.label)
def test_no_operation_whatever_finds_a_bug(
    operation: APIOperation, http: httpx.Client, people: dict[Role, str], ids: list[str]
) -> None:

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(
        case=operation.as_strategy(),
        caller=st.sampled_from([None, *people.values()]),
        lifted=st.just(True) if takes_secrets(operation) else st.booleans(),
        draws=st.data(),
    )
    def ask(case: Case, caller: str | None, lifted: bool, draws: st.DataObject) -> None:
        document = made_likely(parse(case.body), draws.draw, ids)
        text, variables = with_variables(document) if lifted else (print_ast(document), {})
        body = {"query": text, "variables": variables}

        answer = http.post("/graphql", json=body, headers=bearer(caller))

        accepted(answer)
        case.validate_response(answer, checks=[response_schema_conformance])

    ask()


@pytest.mark.parametrize(
    "operation",
    [operation for operation in operations() if operation.definition.raw.args],
    ids=lambda operation: operation.label,
)
def test_no_operation_that_the_schema_forbids_is_executed(
    operation: APIOperation, http: httpx.Client, people: dict[Role, str]
) -> None:
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def ask(case: Case) -> None:
        body = {"query": case.body}

        answer = http.post("/graphql", json=body, headers=bearer(people[Role.ADMIN]))

        accepted(answer)
        case.validate_response(answer, checks=[negative_data_rejection])

    ask()
