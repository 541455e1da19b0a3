"""WebSocket clients that break its rules, or keep them and are a burden all the same."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.abuse.target import Target
from tests.abuse.test_requests import UPGRADE
from tests.web.live.stage import PATIENCE

TEXT, CLOSE, PING = 0x81, 0x88, 0x89
"""The first bytes of whole frames."""
OPERATIONS = 'bargraph_live_operations{transport="websocket"} 0.0'
BARS = """subscription { bars(series: {provider: "sim", symbol: "BTC/USDT", timeframe: "1m"}) {
    __typename } }"""


def written(head: int, data: bytes, *, mask: int = 0x80) -> bytes:
    """Return a frame whose first byte is *head*, under a mask of zeros, without a check of any."""
    size = len(data)
    length = bytes((mask | size,)) if size < 126 else bytes((mask | 127,)) + size.to_bytes(8, "big")
    return bytes((head,)) + length + (bytes(4) if mask else b"") + data


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (written(TEXT, b"\xff\xff"), 1007),
        (written(TEXT, b'"\xed\xa0\x80"'), 1007),
        (b"\x81\xff" + (2**40).to_bytes(8, "big") + bytes(4), 1009),
        (b"\x81\xff" + (2**63).to_bytes(8, "big") + bytes(4), 1009),
        (written(TEXT, b"{}", mask=0), 1002),
        (written(TEXT | 0x40, b"{}"), 1002),
        (written(0x83, b""), 1002),
        (written(0x80, b"{}"), 1002),
        (written(PING, bytes(126)), 1002),
        (written(PING & 0x7F, b""), 1002),
        (written(TEXT & 0x7F, b"{") + written(TEXT, b"}"), 1002),
        (written(CLOSE, b"\x00"), 1002),
        (written(0x82, b"{}"), 4400),
        (written(TEXT, b"[" * 100_000), 4400),
        (written(TEXT, b'{"type":"connection_init","payload":NaN}'), 4400),
        (written(TEXT, b'{"type":"\\ud800"}'), 4400),
    ],
)
async def test_a_frame_against_the_rules_closes(target: Target, sent: bytes, code: int) -> None:
    async with target.socket() as client:
        client.connection.transport.write(sent)  # past the client's own protocol

        assert (await client.closed())[0] == code


async def test_a_message_larger_than_a_body_closes(target: Target) -> None:
    async with target.socket() as client:
        with suppress(ConnectionClosed):  # it may be cut off before it was sent whole
            await client.send("x" * 1_500_000)

        assert (await client.closed())[0] == 1009


async def test_pings_whose_answers_nobody_reads_take_no_room(target: Target) -> None:
    ping, count = written(PING, b"x" * 125), 150_000
    reader, writer = await asyncio.open_connection(*target.address, limit=4_096)
    async with asyncio.timeout(PATIENCE):
        writer.write(b"GET" + UPGRADE + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(written(TEXT, b'{"type":"connection_init"}'))
        await reader.readuntil(b"connection_ack")

        for _ in range(count // 1_000):
            writer.write(ping * 1_000)
            await writer.drain()
        writer.write(written(CLOSE, b"\x03\xe8"))
        pongs = (await reader.read()).count(b"x" * 125)
    writer.close()

    assert 0 < pongs < count


async def test_a_storm_of_operations_that_are_not_waited_for_leaves_nothing(target: Target) -> None:
    async with target.socket() as client:
        await client.init()
        for number in range(2_000):
            await client.subscribe(str(number), BARS)
            await client.complete(str(number))

        assert await client.alive()
    async with asyncio.timeout(PATIENCE), target.http() as http:
        while OPERATIONS not in (await http.get("/metrics")).text:
            await asyncio.sleep(0.05)


async def test_compression_is_not_agreed_upon(target: Target) -> None:
    async with target.socket(compression="deflate") as client:
        assert "Sec-WebSocket-Extensions" not in client.connection.response.headers


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://app.example.evil"])
async def test_a_page_of_another_site_gets_no_socket(target: Target, origin: str) -> None:
    cookie = {"Cookie": "bargraph_refresh=bgr_x", "X-Requested-With": "x"}

    with pytest.raises(InvalidStatus) as refused:
        async with target.socket(origin=origin, additional_headers=cookie):
            pass

    assert refused.value.response.status_code == 403
