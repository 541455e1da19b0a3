"""Where somebody is signed in, as they see it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, cast

import strawberry

from db.accounts.repositories.sessions import Session
from market.errors import BargraphError
from resolvers.identity.principal import Principal
from resolvers.identity.sessions import end_other_sessions, end_session, sessions
from schema.context import Info
from schema.errors import failure_of
from schema.failures import NotFoundType
from schema.node import NO_ID, Node, global_id, uuid_in


@strawberry.type(name="UserSession", description="One place where somebody is signed in.")
class SessionType(Node):
    agent: str | None = strawberry.field(
        description="What the program called itself that signed in: its `User-Agent`."
    )
    address: str | None = strawberry.field(description="The network address it signed in from.")
    created_at: datetime = strawberry.field(description="When it signed in.")
    last_used_at: datetime = strawberry.field(
        description="When it last got an access token, each of which is good for ten minutes."
    )
    expires_at: datetime = strawberry.field(
        description="When the session is over unless it is refreshed before."
    )
    is_current: bool = strawberry.field(description="Whether this very request belongs to it.")

    @classmethod
    def of(cls, session: Session, principal: Principal) -> SessionType:
        return cls(
            id=global_id("UserSession", session.id.hex),
            agent=session.agent,
            address=session.address,
            created_at=session.created_at,
            last_used_at=session.rotated_at,
            expires_at=session.ends_at,
            is_current=session.id == principal.claims.session_id,
        )


@strawberry.input(description="Which sessions to end.")
class EndSessionInput:
    id: strawberry.ID | None = strawberry.field(
        description="The id of one; null: all but the one that asks.", default=None
    )


@strawberry.type(description="They are over. API tokens go on.")
class SessionEnded:
    count: int = strawberry.field(description="How many there were.")


EndSessionResult = Annotated[
    SessionEnded | NotFoundType,
    strawberry.union("EndSessionResult", description="What comes of ending a session."),
]


@strawberry.type
class SessionQueries:
    @strawberry.field(description="Where one is signed in, the session used last first.")
    async def sessions(self, info: Info) -> list[SessionType]:
        context = info.context
        found = await sessions(context.shared.identity, context.principal)
        return [SessionType.of(session, context.principal) for session in found]


@strawberry.type
class SessionMutations:
    @strawberry.mutation(description="Sign oneself out somewhere, or everywhere but here, at once.")
    async def end_session(
        self,
        info: Info,
        input: Annotated[EndSessionInput, strawberry.argument(description="Which sessions.")],
    ) -> EndSessionResult:
        context = info.context
        identity, principal = context.shared.identity, context.principal
        if input.id is None:
            ended = await end_other_sessions(identity, principal, origin=context.origin)
            return SessionEnded(count=ended)
        one = uuid_in(input.id, "UserSession") or NO_ID
        try:
            await end_session(identity, principal, one, origin=context.origin)
        except BargraphError as failure:
            return cast(EndSessionResult, failure_of(failure))
        return SessionEnded(count=1)
