"""GraphQL over HTTP as clients meet it: methods, media types, statuses, refusals, codes."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any, NewType

import httpx
import orjson
import pytest
import strawberry
from graphql import GraphQLError
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from strawberry.extensions import SchemaExtension
from strawberry.schema._graphql_core import BaseGraphQLExecutionContext
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from market.errors import BadInput
from web.documents import Documents
from web.graphql_http import GraphQLEndpoint
from web.graphql_response import LEGACY, MODERN, negotiate
from web.metrics import Metrics
from web.persisted import PersistedQueries

MAX_BODY = 100_000


@strawberry.input
class Nested:
    inner: "list[Nested] | None" = None


def parse_tick(value: object) -> int:
    if not isinstance(value, int):
        raise ValueError("a tick is a whole number")
    if value < 0:
        raise BadInput("Ticks begin at zero.", field="tick")
    return value


Tick = NewType("Tick", int)


@strawberry.type
class Query:
    @strawberry.field
    def at(self, tick: Tick) -> int:
        return tick

    @strawberry.field
    def price(self) -> float:
        return 1.5

    @strawberry.field
    def nothing(self) -> float:
        return float("nan")

    @strawberry.field
    def hello(self, name: str = "world") -> str:
        return f"hello {name}"

    @strawberry.field
    def again(self) -> "list[Query]":
        return [Query()]

    @strawberry.field
    def depth(self, of: Nested) -> int:
        return 0

    @strawberry.field
    def wrong(self) -> str | None:
        raise BadInput("No such thing.", field="wrong")

    @strawberry.field
    def broken(self) -> str | None:
        raise RuntimeError("password=hunter2")

    @strawberry.field
    def who(self, info: strawberry.Info) -> str:
        return str(info.context["who"])

    @strawberry.field
    def chunk(self) -> strawberry.scalars.JSON:
        return orjson.Fragment(b'{"ready":[1,2]}')


@strawberry.type
class Mutation:
    calls = 0

    @strawberry.mutation
    def buy(self) -> str:
        Mutation.calls += 1
        return "bought"


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def ticks(self) -> AsyncIterator[int]:
        yield 1


SCALARS: Any = {Tick: strawberry.scalar(name="Tick", serialize=int, parse_value=parse_tick)}


class Told(SchemaExtension):
    def get_results(self) -> dict[str, Any]:
        return {"told": True}


class Counting(BaseGraphQLExecutionContext):
    built = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.pop("operation_extensions", None)
        super().__init__(*args, **kwargs)
        Counting.built += 1


class Schema(strawberry.Schema):
    processed: list[str]

    def process_errors(
        self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None
    ) -> None:
        self.processed.extend(error.message for error in errors)


def format_error(error: GraphQLError) -> dict[str, Any]:
    """Mask what is not expected, as the schema's own formatter does."""
    formatted: dict[str, Any] = dict(error.formatted)
    cause = error.original_error
    if isinstance(cause, BadInput):
        formatted["extensions"] = {"code": cause.code}
    elif cause is not None:
        formatted |= {"message": "Internal error.", "extensions": {"code": "INTERNAL"}}
    return formatted


def context(request: Request) -> dict[str, str]:
    who = request.headers.get("x-who", "nobody")
    if who == "stranger":
        raise BadInput("I do not know you.", field="x-who")
    if who == "bug":
        raise RuntimeError("password=hunter2")
    return {"who": who}


class Served:
    """One endpoint over its own schema, and a client that speaks to it."""

    def __init__(self, **limits: Any) -> None:
        self.documents = Documents(max_length=50_000)
        self.metrics = Metrics()
        self.schema = Schema(
            Query,
            Mutation,
            Subscription,
            extensions=[self.documents.extension, Told],
            config=StrawberryConfig(scalar_map=SCALARS),
        )
        self.schema.processed = []
        self.endpoint = GraphQLEndpoint(
            schema=self.schema,
            documents=self.documents,
            context=context,
            format_error=format_error,
            persisted=PersistedQueries(None, prefix="test:"),
            metrics=self.metrics,
            max_body=MAX_BODY,
            **limits,
        )
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(Starlette(routes=[Route("/graphql", self.endpoint)])),
            base_url="http://test",
        )

    async def post(self, body: object, *, accept: str = MODERN, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.post(
            "/graphql",
            content=content,
            headers={"content-type": "application/json", "accept": accept, **headers},
        )

    async def get(self, *, accept: str = MODERN, **parameters: str) -> httpx.Response:
        return await self.client.get("/graphql", params=parameters, headers={"accept": accept})


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    served = Served()
    async with served.client:
        yield served


def assert_refused(answer: httpx.Response, status: int, code: str) -> str:
    """Return the message of a refusal that has *status* and *code*, and nothing of our insides."""
    assert (answer.status_code, answer.json().keys() & {"data"}) == (status, set())
    error = answer.json()["errors"][0]
    assert error["extensions"]["code"] == code
    assert "Traceback" not in answer.text
    return str(error["message"])


# Media types


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (MODERN, MODERN),
        (LEGACY, LEGACY),
        ("", LEGACY),
        ("*/*", LEGACY),
        ("application/*", LEGACY),
        ("text/html,application/xhtml+xml,*/*;q=0.8", LEGACY),
        (f"{MODERN},{LEGACY};q=0.9", MODERN),
        (f"{LEGACY},{MODERN}", MODERN),
        (f"{LEGACY};q=0.9, {MODERN};q=0.8", LEGACY),
        (f"{MODERN.upper()} ; charset=utf-8", MODERN),
        (f"{MODERN};q=0, */*", LEGACY),
        (f"{LEGACY};q=0, */*;q=0.1", MODERN),
        (f"{LEGACY}, */*", LEGACY),
        (f"{MODERN}, */*", MODERN),
        (f"{MODERN};q=nan, {LEGACY};q=0.1", LEGACY),
    ],
)
def test_accept_header_chooses_the_media_type(accept: str, media_type: str) -> None:
    assert negotiate(accept) == media_type


async def test_answers_carry_the_negotiated_type_in_utf8_and_are_not_stored(
    served: Served,
) -> None:
    answer = await served.post({"query": '{ hello(name: "🏃") }'})

    assert answer.headers["content-type"] == f"{MODERN}; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert json.loads(answer.content.decode())["data"] == {"hello": "hello 🏃"}


@pytest.mark.parametrize("accept", ["text/html", f"{LEGACY};q=0", "*/*;q=0", "image/*"])
async def test_no_acceptable_media_type_is_406(served: Served, accept: str) -> None:
    answer = await served.post({"query": "{ hello }"}, accept=accept)

    assert_refused(answer, 406, "BAD_REQUEST")


async def test_several_accept_headers_are_one(served: Served) -> None:
    answer = await served.client.post(
        "/graphql",
        json={"query": "{ hello }"},
        headers=[("accept", "text/html"), ("accept", MODERN)],
    )

    assert answer.headers["content-type"].startswith(MODERN)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "application/jsonp"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
async def test_a_body_that_is_not_json_in_utf8_is_415(
    served: Served, headers: dict[str, str]
) -> None:
    answer = await served.client.post("/graphql", content=b'{"query":"{ hello }"}', headers=headers)

    assert_refused(answer, 415, "BAD_REQUEST")


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "Application/JSON", 'application/json;charset="UTF-8"'],
)
async def test_json_is_known_however_its_type_is_written(served: Served, content_type: str) -> None:
    answer = await served.client.post(
        "/graphql", content=b'{"query":"{ hello }"}', headers={"content-type": content_type}
    )

    assert answer.json()["data"] == {"hello": "hello world"}


# Requests


@pytest.mark.parametrize("accept", [MODERN, LEGACY, "*/*"])
@pytest.mark.parametrize("parameter", ["variables", "operationName", "extensions"])
async def test_optional_parameters_may_be_null(served: Served, accept: str, parameter: str) -> None:
    answer = await served.post({"query": "{ hello }", parameter: None}, accept=accept)

    assert (answer.status_code, "errors" in answer.json()) == (200, False)


async def test_unknown_parameters_are_ignored(served: Served) -> None:
    answer = await served.post({"query": "{ hello }", "id": 7})

    assert answer.json()["data"] == {"hello": "hello world"}


async def test_variables_and_operation_name_choose_what_runs(served: Served) -> None:
    answer = await served.post(
        {
            "query": "query A { price } query B($name: String!) { hello(name: $name) }",
            "operationName": "B",
            "variables": {"name": "you"},
            "extensions": {"some": "value"},
        }
    )

    assert answer.json()["data"] == {"hello": "hello you"}


async def test_get_reads_json_parameters_and_takes_empty_ones_for_absent(served: Served) -> None:
    full = await served.get(
        query="query Q($name: String!) { hello(name: $name) }",
        operationName="Q",
        variables='{"name":"you"}',
        extensions='{"some":"value"}',
    )
    empty = await served.get(query="{ hello }", operationName="", variables="", extensions="")

    assert full.json()["data"] == {"hello": "hello you"}
    assert empty.json()["data"] == {"hello": "hello world"}


@pytest.mark.parametrize("accept", [MODERN, LEGACY, "*/*", "text/html,*/*;q=0.8"])
async def test_get_without_a_query_is_a_graphql_error_and_never_a_page(
    served: Served, accept: str
) -> None:
    answer = await served.get(accept=accept)

    assert_refused(answer, 400, "BAD_REQUEST")
    assert "json" in answer.headers["content-type"]


@pytest.mark.parametrize("name", ["variables", "extensions"])
@pytest.mark.parametrize("text", ["{", "[]", "7", '"x"', "{'a':1}", "\udcff"])
async def test_get_refuses_parameters_that_are_no_json_objects(
    served: Served, name: str, text: str
) -> None:
    url = f"/graphql?query={{hello}}&{name}=" + "".join(
        f"%{byte:02x}" for byte in text.encode(errors="surrogateescape")
    )

    answer = await served.client.get(url)

    assert_refused(answer, 400, "BAD_REQUEST")


@pytest.mark.parametrize("accept", [MODERN, LEGACY])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"7",
        b"null",
        b"[]",
        b'"x"',
        b"true",
        b'{ "not a JSON',
        b"\xff\xfe",
        b'{"query":"\xff"}',
        b'{"query":"\\ud800"}',
        b'\xef\xbb\xbf{"query":"{hello}"}',
        b'{"query":"{hello}","variables":{"a":NaN}}',
        b'{"query":"{hello}","variables":{"a":1e999}}',
        b"[" * 90_000,
        b'{"query":' + b'{"a":' * 10_000,
        b"{}",
        b'{"qeury":"{hello}"}',
        b'{"query":null}',
        *(b'{"query":%s}' % value for value in (b"{}", b"0", b"false", b"[]")),
        *(
            b'{"query":"{hello}","operationName":%s}' % value
            for value in (b"{}", b"0", b"false", b"[]")
        ),
        *(
            b'{"query":"{hello}","%s":%s}' % (name, value)
            for name in (b"variables", b"extensions")
            for value in (b'"string"', b"0", b"false", b"[]")
        ),
    ],
)
async def test_a_malformed_body_is_400_in_every_media_type(
    served: Served, body: bytes, accept: str
) -> None:
    answer = await served.post(body, accept=accept)

    assert_refused(answer, 400, "BAD_REQUEST")
    assert answer.headers["content-type"].startswith(accept)


async def test_batches_are_refused_by_name(served: Served) -> None:
    answer = await served.post([{"query": "{ hello }"}, {"query": "{ price }"}])

    assert "Batches are not supported" in assert_refused(answer, 400, "BAD_REQUEST")


async def post_by_hand(
    served: Served, chunks: AsyncIterator[bytes | None], **headers: str
) -> list[Any]:
    """Send *chunks* without an end (None: the client leaves) and return what came back."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        chunk = await anext(chunks)
        if chunk is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = {"content-type": "application/json", **headers}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/graphql",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in raw.items()],
    }
    await served.endpoint(scope, receive, send)
    return sent


async def test_a_declared_length_beyond_the_limit_is_413_before_a_byte_is_read(
    served: Served,
) -> None:
    async def unread() -> AsyncIterator[bytes]:
        yield b""
        raise AssertionError("the body was read")

    chunks = unread()

    sent = await post_by_hand(served, chunks, **{"content-length": "10000000"})

    assert sent[0]["status"] == 413
    assert await anext(chunks) == b""


async def test_an_undeclared_length_is_413_as_soon_as_the_limit_is_passed(
    served: Served,
) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 10_000
            yield b" " * 10_000

    sent = await post_by_hand(served, endless())

    assert sent[0]["status"] == 413
    assert read == MAX_BODY + 10_000


async def test_a_body_that_never_ends_is_408() -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    sent = await post_by_hand(Served(body_timeout=0.01), stalled())

    assert sent[0]["status"] == 408


async def test_a_client_that_leaves_while_sending_gets_no_answer(served: Served) -> None:
    async def leaving() -> AsyncIterator[bytes | None]:
        yield b"{"
        yield None

    assert await post_by_hand(served, leaving()) == []


# Methods


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "BREW"])
async def test_other_methods_are_405_and_say_which_work(served: Served, method: str) -> None:
    answer = await served.client.request(method, "/graphql?query={hello}")

    assert_refused(answer, 405, "BAD_REQUEST")
    assert answer.headers["allow"] == "GET, HEAD, POST, OPTIONS"


async def test_head_answers_like_get_without_a_body(served: Served) -> None:
    got = await served.client.get("/graphql?query={hello}")
    head = await served.client.head("/graphql?query={hello}")

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(got.content))


async def test_options_lists_the_methods(served: Served) -> None:
    answer = await served.client.options("/graphql")

    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["allow"] == "GET, HEAD, POST, OPTIONS"


@pytest.mark.parametrize("accept", [MODERN, LEGACY])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_mutations_run_by_post_alone(served: Served, accept: str, method: str) -> None:
    before = Mutation.calls

    got = await served.client.request(
        method, "/graphql?query=mutation{buy}", headers={"accept": accept}
    )
    posted = await served.post({"query": "mutation { buy }"}, accept=accept)

    assert (got.status_code, got.headers["allow"]) == (405, "POST")
    assert posted.json()["data"] == {"buy": "bought"}
    assert Mutation.calls == before + 1


async def test_get_runs_the_named_query_of_a_document_that_also_has_a_mutation(
    served: Served,
) -> None:
    answer = await served.get(query="query Q { hello } mutation M { buy }", operationName="Q")

    assert answer.json()["data"] == {"hello": "hello world"}


@pytest.mark.parametrize("accept", [MODERN, LEGACY])
async def test_subscriptions_are_sent_to_the_websocket(served: Served, accept: str) -> None:
    posted = await served.post({"query": "subscription { ticks }"}, accept=accept)
    got = await served.get(query="subscription { ticks }", accept=accept)

    assert "WebSocket" in assert_refused(posted, 400, "BAD_REQUEST")
    assert "WebSocket" in assert_refused(got, 400, "BAD_REQUEST")


# Operations


@pytest.mark.parametrize(("accept", "status"), [(MODERN, 400), (LEGACY, 200), ("*/*", 200)])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"query": "{"}, "GRAPHQL_PARSE_FAILED"),
        ({"query": ""}, "GRAPHQL_PARSE_FAILED"),
        ({"query": "{ nope }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "{ 8f31403d }"}, "GRAPHQL_PARSE_FAILED"),
        (
            {"query": "query Q($n: String!) { hello(name: $n) }", "variables": {"n": None}},
            "BAD_USER_INPUT",
        ),
        (
            {"query": "query Q($n: String!) { hello(name: $n) }", "variables": {"n": 10**30}},
            "BAD_USER_INPUT",
        ),
        (
            {"query": "query Q($t: Tick!) { at(tick: $t) }", "variables": {"t": "x"}},
            "BAD_USER_INPUT",
        ),
        (
            {"query": "query Q($t: Tick!) { at(tick: $t) }", "variables": {"t": -1}},
            "BAD_USER_INPUT",
        ),
        ({"query": '{ at(tick: "x") }'}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "{ at(tick: -1) }"}, "BAD_USER_INPUT"),
    ],
)
async def test_a_mistaken_operation_has_a_code_and_a_status_by_media_type(
    served: Served, body: object, code: str, accept: str, status: int
) -> None:
    answer = await served.post(body, accept=accept)

    assert_refused(answer, status, code)


@pytest.mark.parametrize("accept", [MODERN, LEGACY])
@pytest.mark.parametrize(
    ("query", "name", "words"),
    [
        ("query A { hello } query B { price }", None, "Must provide operation name"),
        ("query A { hello }", "B", "Unknown operation named 'B'"),
        ("{ hello }", "", "Unknown operation named ''"),
        ("query A { hello }", "B" * 10_000, "BBB..."),
        ("fragment F on Query { hello }", None, "Must provide an operation"),
    ],
)
async def test_an_operation_that_cannot_be_determined_is_refused(
    served: Served, query: str, name: str | None, words: str, accept: str
) -> None:
    answer = await served.post({"query": query, "operationName": name}, accept=accept)

    message = assert_refused(answer, 400, "OPERATION_RESOLUTION_FAILURE")
    assert words in message
    assert len(message) < 200


@pytest.mark.parametrize("accept", [MODERN, LEGACY])
@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{again" * 5_000 + "}" * 5_000, "GRAPHQL_PARSE_FAILED"),
        ("{again" * 400 + "{price}" + "}" * 400, "GRAPHQL_PARSE_FAILED"),
        ("{" + " price" * 5_000 + "}", "GRAPHQL_PARSE_FAILED"),
        ("#\n" * 5_000 + "{ price }", "GRAPHQL_PARSE_FAILED"),
        ("{ price }" + " " * 60_000, "GRAPHQL_PARSE_FAILED"),
        ("{ depth(of: " + "{inner: [" * 200 + "]}" * 200 + ") }", "GRAPHQL_PARSE_FAILED"),
        (
            "{ ...F0 } fragment F50 on Query { price } "
            + " ".join(
                f"fragment F{i} on Query {'{again' * 10} {{ ...F{i + 1} }} {'}' * 10}"
                for i in range(50)
            ),
            "GRAPHQL_VALIDATION_FAILED",
        ),
        ("{again" * 30 + "{price}" + "}" * 30, "GRAPHQL_VALIDATION_FAILED"),
        (
            f"{{again{{...F}}}} fragment F on Query {'{again' * 29}{{price}}{'}' * 29}",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        ("{" + " ".join(f"a{i}" for i in range(1_500)) + "}", "GRAPHQL_VALIDATION_FAILED"),
    ],
)
async def test_bombs_are_400_in_every_media_type(
    served: Served, query: str, code: str, accept: str
) -> None:
    answer = await served.post({"query": query}, accept=accept)

    assert_refused(answer, 400, code)
    assert len(answer.json()["errors"]) <= 20


async def test_thirty_levels_are_answered_also_through_fragments(served: Served) -> None:
    plain = "{again" * 29 + "{price}" + "}" * 29
    spread = f"{{...F}} fragment F on Query {{... on Query {plain}}}"

    for query in (plain, spread):
        assert "errors" not in (await served.post({"query": query})).json()


async def test_variables_nested_beyond_the_stack_are_400(served: Served) -> None:
    nested = b'{"inner":[' * 500 + b"]}" * 500

    answer = await served.post(
        b'{"query":"query Q($of: Nested!) { depth(of: $of) }","variables":{"of":' + nested + b"}}",
        accept=LEGACY,
    )

    assert_refused(answer, 400, "BAD_USER_INPUT")


# Results


@pytest.mark.parametrize("accept", [MODERN, LEGACY])
async def test_a_field_that_fails_is_null_beside_its_error_and_200(
    served: Served, accept: str
) -> None:
    answer = await served.post({"query": "{ hello wrong }"}, accept=accept)

    assert answer.status_code == 200
    assert answer.json()["data"] == {"hello": "hello world", "wrong": None}
    assert answer.json()["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


async def test_nan_is_an_error_and_null_data_is_still_200(served: Served) -> None:
    answer = await served.post({"query": "{ nothing }"})

    assert (answer.status_code, answer.json()["data"]) == (200, None)
    assert answer.json()["errors"][0]["path"] == ["nothing"]


async def test_a_bug_in_a_resolver_is_masked_by_the_formatter(served: Served) -> None:
    answer = await served.post({"query": "{ broken }"})

    assert answer.json()["data"] == {"broken": None}
    assert answer.json()["errors"][0]["extensions"] == {"code": "INTERNAL"}
    assert "hunter2" not in answer.text


@pytest.mark.parametrize("accept", [MODERN, LEGACY])
async def test_a_bug_outside_every_resolver_is_500_and_masked(served: Served, accept: str) -> None:
    answer = await served.post({"query": "{ hello }"}, accept=accept, **{"x-who": "bug"})

    assert_refused(answer, 500, "INTERNAL")
    assert "hunter2" not in answer.text


async def test_an_expected_failure_of_the_context_keeps_its_code(served: Served) -> None:
    answer = await served.post({"query": "{ hello }"}, **{"x-who": "stranger"})

    assert_refused(answer, 400, "BAD_USER_INPUT")


async def test_fragments_of_ready_json_leave_as_they_are(served: Served) -> None:
    answer = await served.post({"query": "{ chunk }"})

    assert answer.content.startswith(b'{"data":{"chunk":{"ready":[1,2]}}')


async def test_schema_extensions_context_and_error_processing_take_part(
    served: Served,
) -> None:
    answer = await served.post({"query": "{ who wrong }"}, **{"x-who": "ann"})

    assert answer.json()["data"]["who"] == "ann"
    assert answer.json()["extensions"] == {"told": True}
    assert served.schema.processed == ["No such thing."]


async def test_the_schemas_own_executor_runs_the_operation() -> None:
    documents = Documents()
    schema = strawberry.Schema(
        Query,
        extensions=[documents.extension],
        execution_context_class=Counting,
        config=StrawberryConfig(scalar_map=SCALARS),
    )
    endpoint = GraphQLEndpoint(
        schema=schema,
        documents=documents,
        context=lambda request: None,
        format_error=format_error,
        persisted=PersistedQueries(None, prefix="test:"),
        metrics=Metrics(),
    )
    before = Counting.built

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(endpoint), base_url="http://test"
    ) as client:
        answer = await client.get("/?query={price}")

    assert answer.json() == {"data": {"price": 1.5}}
    assert Counting.built == before + 1


def test_a_schema_without_the_document_cache_is_refused_at_start() -> None:
    with pytest.raises(ValueError, match=r"documents\.extension"):
        GraphQLEndpoint(
            schema=strawberry.Schema(Query, config=StrawberryConfig(scalar_map=SCALARS)),
            documents=Documents(),
            context=lambda request: None,
            format_error=format_error,
            persisted=PersistedQueries(None, prefix="test:"),
            metrics=Metrics(),
        )


async def test_a_hot_document_is_parsed_and_validated_once(served: Served) -> None:
    for _ in range(3):
        await served.post({"query": "query Hot { hello }"})

    assert (served.documents.parses, served.documents.validations) == (1, 1)


# Metrics


async def test_requests_are_counted_by_operation_type_and_outcome(served: Served) -> None:
    await served.post({"query": "query Hot { hello }"})
    await served.post({"query": "query Hot { wrong }"})
    await served.post({"query": "mutation { buy }"})
    await served.post({"query": "query Invalid { nope }"})

    def count(operation: str, type: str, outcome: str) -> float | None:
        return served.metrics.registry.get_sample_value(
            "bargraph_requests_total",
            {"operation": operation, "type": type, "outcome": outcome},
        )

    assert count("Hot", "query", "ok") == 1
    assert count("Hot", "query", "errors") == 1
    assert count("anonymous", "mutation", "ok") == 1
    assert count("none", "none", "refused") == 1
    assert count("Invalid", "query", "refused") is None


# Whatever comes

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=10,
)
graphql_like = st.lists(
    st.sampled_from(
        ["query", "mutation", "{", "}", "hello", "wrong", "(", ")", "$a", ":", '"', "...", "@skip"]
    )
    | st.sampled_from(
        ["fragment", "on", "Query", "Q", "[", "]", "String", "1e9", "#", "\n", "price", "again"]
    ),
    max_size=25,
).map(" ".join)
requests = st.fixed_dictionaries(
    {},
    optional={
        "query": graphql_like | st.text(max_size=30) | json_values,
        "operationName": st.text(max_size=10) | json_values,
        "variables": json_values,
        "extensions": json_values | st.fixed_dictionaries({"persistedQuery": json_values}),
    },
)
bodies = st.one_of(
    st.binary(max_size=200),
    json_values.map(lambda value: json.dumps(value).encode()),
    requests.map(lambda value: json.dumps(value).encode()),
)


@settings(deadline=None, max_examples=300)
@given(body=bodies, accept=st.sampled_from([MODERN, LEGACY]))
def test_no_body_whatever_makes_a_server_error(body: bytes, accept: str) -> None:
    logging.disable(logging.CRITICAL)
    try:
        answer = asyncio.run(Served().post(body, accept=accept))
    finally:
        logging.disable(logging.NOTSET)

    assert answer.status_code < 500
    assert answer.json().keys() & {"data", "errors"}


@settings(deadline=None, max_examples=100)
@given(
    parameters=st.lists(
        st.tuples(
            st.sampled_from(["query", "operationName", "variables", "extensions", "x"]),
            st.text(st.characters(codec="utf-8"), max_size=20)
            | graphql_like
            | json_values.map(lambda value: json.dumps(value)),
        ),
        max_size=5,
    )
)
def test_no_url_whatever_makes_a_server_error(parameters: list[tuple[str, str]]) -> None:
    answer = asyncio.run(Served().client.get("/graphql", params=parameters))

    assert answer.status_code < 500
    assert answer.json().keys() & {"data", "errors"}
