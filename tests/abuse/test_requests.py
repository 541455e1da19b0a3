"""Bytes that are hardly HTTP, sent to the server that faces the world."""

from __future__ import annotations

import re

import pytest

from tests.abuse.target import Target
from web.http_protocol import MAX_HEAD

BODY = b'{"query":"{ markets { name } }"}'
HEAD = b"POST /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
CLOSE = b"connection: close\r\n"
LENGTH = b"content-length: %d\r\n" % len(BODY)
CHUNKED = b"transfer-encoding: chunked\r\n"
SMUGGLED = b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
UPGRADE = (
    b" /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"sec-websocket-protocol: graphql-transport-ws\r\n"
)


def statuses(received: bytes) -> list[int]:
    """Return the status of each answer in *received*."""
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


async def test_an_ordinary_request_in_bytes_is_answered(target: Target) -> None:
    received = await target.raw(HEAD + CLOSE + LENGTH + b"\r\n" + BODY)

    assert statuses(received) == [200]
    assert b'"markets"' in received


@pytest.mark.parametrize(
    "framing",
    [
        LENGTH + b"content-length: 5\r\n",
        LENGTH + LENGTH,
        LENGTH + CHUNKED,
        CHUNKED + LENGTH,
        CHUNKED + b"transfer-encoding: identity\r\n",
        b"transfer-encoding: chunked, identity\r\n",
        b"transfer-encoding: xchunked\r\n" + LENGTH,
        b"content-length: -1\r\n",
        b"content-length: +32\r\n",
        b"content-length: 0x20\r\n",
        b"content-length: 32, 32\r\n",
        b"content-length: 99999999999999999999999\r\n",
        "content-length: ³²\r\n".encode("latin-1"),
        b"content-length : 32\r\n",
        LENGTH + b"x-folded: one\r\n two\r\n",
        LENGTH + b"x-nul: \x00\r\n",
        LENGTH + b"no colon at all\r\n",
        LENGTH + b": no name\r\n",
    ],
)
async def test_a_length_that_could_be_read_in_two_ways_smuggles_nothing(
    target: Target, framing: bytes
) -> None:
    received = await target.raw(HEAD + framing + b"\r\n" + BODY + SMUGGLED)

    assert statuses(received) == [400]
    assert b"markets" not in received


async def test_what_follows_a_shorter_length_is_no_request(target: Target) -> None:
    received = await target.raw(HEAD + b"content-length: 5\r\n\r\n" + BODY + SMUGGLED)

    assert set(statuses(received)) == {400}
    assert b"markets" not in received


async def test_a_body_that_ends_too_early_gets_no_answer(target: Target) -> None:
    received = await target.raw(HEAD + b"content-length: 99\r\n\r\n" + BODY, end=True)

    assert received == b""


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"-5\r\n", b"ffffffffffffffffff\r\n", b"5\r\nabc"])
async def test_a_chunk_that_lies_about_its_length_gets_no_answer(
    target: Target, chunk: bytes
) -> None:
    received = await target.raw(HEAD + CHUNKED + b"\r\n" + chunk + b"\r\n" * 8, end=True)

    assert statuses(received) in ([], [400])


@pytest.mark.parametrize(
    "begun",
    [HEAD + b"x-long: ", b"GET /graphql?query=", HEAD + CHUNKED + b"\r\n0\r\nx-trailer: "],
    ids=["a header", "a URL", "a trailer"],
)
async def test_what_never_ends_is_cut_off(target: Target, begun: bytes) -> None:
    received = await target.raw(begun, *[b"a" * MAX_HEAD] * 16)

    assert statuses(received) in ([], [400])


async def test_a_large_body_is_refused_before_it_is_asked_for(target: Target) -> None:
    declared = b"expect: 100-continue\r\ncontent-length: 10000000\r\n"

    received = await target.raw(HEAD + CLOSE + declared + b"\r\n")

    assert statuses(received) == [413]


async def test_a_flood_on_one_connection_is_answered_in_order(target: Target) -> None:
    asked = [b"GET /graphql?query={a%d:__typename} HTTP/1.1\r\nhost: a\r\n" % n for n in range(300)]

    received = await target.raw(b"\r\n".join(asked) + CLOSE + b"\r\n")

    assert re.findall(rb'"a(\d+)":"Query"', received) == [b"%d" % n for n in range(300)]


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /\xff HTTP/1.1",
        b"GET /graphql?query=\xff HTTP/1.1",
        b"GET /graphql?query={__typename} HTTP/3.7",
        b"PRI * HTTP/2.0",
        b"GET\t/graphql HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_no_request_is_400_and_the_end(target: Target, request_line: bytes) -> None:
    received = await target.raw(request_line + b"\r\nhost: a\r\n\r\n" + SMUGGLED)

    assert statuses(received) == [400]


@pytest.mark.parametrize(
    "path",
    [b"/graphql/..%2f..%2fetc%2fpasswd", b"/%ff%00", b"//evil/graphql", b"/graphiql/../.env", b"*"],
)
async def test_a_path_leads_to_no_file(target: Target, path: bytes) -> None:
    received = await target.raw(b"GET " + path + b" HTTP/1.1\r\nhost: a\r\n" + CLOSE + b"\r\n")

    assert statuses(received) == [404]


@pytest.mark.parametrize(
    "text",
    [
        b'{"query":"{ markets { name } }","query":"{ me { id } }"}',
        b'{"query":"mutation { a }","query":"{ me { id } }"}',
    ],
)
async def test_of_a_name_that_is_given_twice_the_last_counts(target: Target, text: bytes) -> None:
    answer = await target.post(text)

    assert answer.json()["data"] == {"me": None}


@pytest.mark.parametrize("name", ["accept", "cookie", "authorization", "x-request-id", "origin"])
async def test_an_absurd_header_is_at_most_refused(target: Target, name: str) -> None:
    for value in ("," * 50_000, "q=0;" * 10_000, "*/*;q=" + "9" * 50_000, "a=b;" * 10_000):
        answer = await target.post(BODY, **{name.replace("-", "_"): value})

        assert answer.status_code in {200, 401, 406}


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET" + UPGRADE + b"x: a\r\n" * 95,
        b"GET" + UPGRADE + b"x: " + b"a" * 20_000 + b"\r\n",
        b"POST" + UPGRADE + LENGTH,
        b"GET" + UPGRADE.replace(b"key:", b"no-key:"),
        b"GET" + UPGRADE.replace(b"version: 13", b"version: 8"),
        b"GET" + UPGRADE + b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        b"GET" + UPGRADE.replace(b"graphql-transport-ws", b"\xff"),
    ],
    ids=["headers", "a header", "POST", "no key", "version", "two keys", "subprotocol"],
)
async def test_a_handshake_that_is_none_is_answered_and_over(
    target: Target, request_head: bytes
) -> None:
    received = await target.raw(request_head + b"\r\n")

    assert statuses(received) == [400]
