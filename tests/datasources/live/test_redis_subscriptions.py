"""Whatever order joining, leaving, losing and answering come in, no loss goes untold."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from datasources.live.redis_inbox import Break, Inbox
from datasources.live.redis_subscriptions import Subscriptions

CHANNELS = (b"a", b"b")


@dataclass
class Server:
    """Redis as one connection sees it: it takes commands in order and answers in order."""

    commands: deque[tuple[str, bytes]] = field(default_factory=deque)
    answers: deque[tuple[str, bytes, bytes]] = field(default_factory=deque)
    subscribed: set[bytes] = field(default_factory=set)

    def take_one(self) -> None:
        if not self.commands:
            return
        command, channel = self.commands.popleft()
        if command == "SUBSCRIBE":
            self.subscribed.add(channel)
            self.answers.append(("subscribe", channel, b""))
        else:
            self.subscribed.discard(channel)

    def publish(self, channel: bytes, message: bytes) -> None:
        if channel in self.subscribed:
            self.answers.append(("message", channel, message))

    def answer_one(self, subscriptions: Subscriptions) -> None:
        if not self.answers:
            return
        kind, channel, message = self.answers.popleft()
        if kind == "subscribe":
            subscriptions.confirm(channel)
        else:
            subscriptions.deliver(channel, message)


@dataclass
class Listener:
    """Someone who listens; *entered_at* is the number of the first message sent after entering."""

    channel: bytes
    inbox: Inbox
    joining: asyncio.Task[None]
    entered_at: int | None = None


def tell(subscriptions: Subscriptions, server: Server) -> None:
    batch = subscriptions.next_batch()
    server.commands.extend(("SUBSCRIBE", channel) for channel in batch.subscribe)
    server.commands.extend(("UNSUBSCRIBE", channel) for channel in batch.unsubscribe)


async def heard(inbox: Inbox) -> list[bytes | Break]:
    items: list[bytes | Break] = []
    while True:
        try:
            async with asyncio.timeout(0):
                items.append(await anext(inbox))
        except TimeoutError:
            return items


# Mostly one channel, and a connection that lasts: rare orders take many steps on one of both.
STEPS = st.one_of(
    st.tuples(st.just("join"), st.sampled_from((*CHANNELS, CHANNELS[0]))),
    st.tuples(st.just("leave"), st.integers(0, 1)),
    *(st.tuples(st.just(step), st.none()) for step in ("tell", "take", "answer")),
    st.tuples(st.just("publish"), st.sampled_from((*CHANNELS, CHANNELS[0]))),
    st.tuples(st.sampled_from(["lose", "connect", "connect"]), st.none()),
)


@settings(deadline=None, max_examples=500)
@given(steps=st.lists(STEPS, min_size=20, max_size=60))
async def test_between_two_breaks_whoever_entered_misses_nothing(
    steps: list[tuple[str, bytes | int | None]],
) -> None:
    subscriptions, server, connected = Subscriptions(), Server(), True
    subscriptions.connected()
    listeners: list[Listener] = []
    sent: list[tuple[bytes, bytes]] = []

    async def enter() -> None:
        """Let those whose joining is over notice it, and remember where they came in."""
        for _ in range(3):
            await asyncio.sleep(0)
        for listener in listeners:
            if listener.joining.done() and listener.entered_at is None:
                listener.entered_at = len(sent)

    for step, what in steps:
        if step == "join" and isinstance(what, bytes):
            inbox = Inbox(most=1000, most_bytes=100_000)
            joining = asyncio.ensure_future(subscriptions.join(what, inbox))
            listeners.append(Listener(what, inbox, joining))
        elif step == "leave" and isinstance(what, int) and what < len(listeners):
            left = listeners.pop(what)
            left.joining.cancel()
            subscriptions.leave(left.channel, left.inbox)
        elif step == "publish" and isinstance(what, bytes):
            sent.append((what, b"%d" % len(sent)))
            server.publish(*sent[-1])
        elif step == "tell" and connected:
            tell(subscriptions, server)
        elif step == "take":
            server.take_one()
        elif step == "answer":
            server.answer_one(subscriptions)
        elif step == "lose" and connected:
            connected, server = False, Server()
            subscriptions.lost()
        elif step == "connect" and not connected:
            connected = True
            subscriptions.connected()
        await enter()

    if not connected:
        subscriptions.connected()
    for _ in range(2 * len(steps) + 10):
        tell(subscriptions, server)
        server.take_one()
        server.answer_one(subscriptions)
    await enter()
    for channel in CHANNELS:
        sent.append((channel, b"%d" % len(sent)))
        server.publish(*sent[-1])
        server.answer_one(subscriptions)

    assert server.subscribed == {listener.channel for listener in listeners}
    for listener in listeners:
        assert listener.entered_at is not None
        items = await heard(listener.inbox)
        mine = [number for channel, number in sent if channel == listener.channel]
        stretches = _stretches(items)
        for stretch in stretches:
            begin = mine.index(stretch[0])
            assert stretch == mine[begin : begin + len(stretch)]
        assert stretches[-1][-1] == mine[-1]
        breaks = [item for item in items if isinstance(item, Break)]
        assert breaks == [Break.AWAY, Break.BACK] * (len(breaks) // 2)
        if not breaks:
            expected = [number for number in mine if int(number) >= listener.entered_at]
            assert stretches[-1][-len(expected) :] == expected


def _stretches(items: list[bytes | Break]) -> list[list[bytes]]:
    """Return the messages between breaks, without stretches that have none."""
    stretches: list[list[bytes]] = [[]]
    for item in items:
        if isinstance(item, Break):
            stretches.append([])
        else:
            stretches[-1].append(item)
    return [stretch for stretch in stretches if stretch]
