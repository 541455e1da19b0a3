"""A short soak of a real server; `make soak-live` is the long one, which looks at memory too."""

from __future__ import annotations

from benchmarks.live.soak import Plan, soak, watched

PLAN = Plan(sockets=60, seconds=5, warming=3, visit=1)


async def test_visitors_that_come_and_go_leave_nothing_behind(tmp_path):
    async with watched(tmp_path) as server:
        outcome = await soak(server, PLAN, say=print)

    assert outcome.leaks == []
    assert outcome.swarm.resumed
