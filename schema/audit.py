"""The audit log as clients see it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry

from db.accounts.repositories.audit import Entry
from market.errors import BadInput
from resolvers.audit import FIRST, AuditPage, AuditWanted, audit_page
from schema.catalogue import PageInfo
from schema.context import Info
from schema.node import global_id, uuid_in


@strawberry.type(name="AuditEntry", description="Something that was done. It never changes.")
class AuditEntryType:
    at: datetime = strawberry.field(description="When.")
    action: str = strawberry.field(
        description="What: `login`, `add-credential`, `start-backfill` and the like."
    )
    result: str = strawberry.field(
        description="How it ended: `ok`, or the code of what kept it from being done."
    )
    target: str | None = strawberry.field(description="What it was done to, where there is such.")
    user_id: strawberry.ID | None = strawberry.field(
        description="Whose log the line is in; null where nobody's account was meant."
    )
    actor_id: strawberry.ID | None = strawberry.field(
        description="Who did it; null where nobody proved to be anyone."
    )
    address: str | None = strawberry.field(description="The network address it came from.")
    request_id: str | None = strawberry.field(
        description="The request, as the server's log has it."
    )

    @classmethod
    def of(cls, entry: Entry) -> AuditEntryType:
        user, actor = entry.user_id, entry.actor_id
        return cls(
            at=entry.at,
            action=entry.action,
            result=entry.result,
            target=entry.target,
            user_id=None if user is None else global_id("User", user.hex),
            actor_id=None if actor is None else global_id("User", actor.hex),
            address=entry.address,
            request_id=entry.request_id,
        )


@strawberry.type(description="A line of the audit log at its place.")
class AuditEdge:
    node: AuditEntryType = strawberry.field(description="The line.")
    cursor: str = strawberry.field(description="Its place, for `after`.")


@strawberry.type(description="A page of the audit log, the newest line first.")
class AuditConnection:
    edges: list[AuditEdge] = strawberry.field(description="The lines with their cursors.")
    nodes: list[AuditEntryType] = strawberry.field(description="The lines.")
    page_info: PageInfo = strawberry.field(description="Where the page lies.")

    @classmethod
    def of(cls, page: AuditPage) -> AuditConnection:
        nodes = [AuditEntryType.of(entry) for entry in page.entries]
        return cls(
            edges=[
                AuditEdge(node=node, cursor=cursor)
                for node, cursor in zip(nodes, page.cursors, strict=True)
            ],
            nodes=nodes,
            page_info=PageInfo.of(
                page.cursors, has_previous=page.has_previous, has_next=page.has_next
            ),
        )


@strawberry.input(description="Which lines of the audit log.")
class AuditFilter:
    action: str | None = strawberry.field(
        default=None, description="Only those of this action: `login`."
    )
    user_id: strawberry.ID | None = strawberry.field(
        default=None, description="Those of this user. Of others than oneself only for admins."
    )
    everybody: bool | None = strawberry.field(
        default=False, description="Those of all users, and of nobody. Only for admins."
    )

    def wanted(self) -> AuditWanted:
        """Return the filter for the resolver. Raises `BadInput`."""
        user_id = None
        if self.user_id is not None:
            user_id = uuid_in(self.user_id, "User")
            if user_id is None:
                raise BadInput("userId is not the id of a user.", field="userId")
        return AuditWanted(everybody=bool(self.everybody), user_id=user_id, action=self.action)


@strawberry.type
class AuditQueries:
    @strawberry.field(
        description="What was done with one's account: each sign-in, each change of a key, each "
        "backfill. For admins, if the filter says so, what everybody did."
    )
    async def audit_log(
        self,
        info: Info,
        filter: Annotated[
            AuditFilter | None,
            strawberry.argument(description="Which lines; by default all of one's own."),
        ] = None,
        first: Annotated[
            int | None, strawberry.argument(description="At most so many, from the newest.")
        ] = FIRST,
        after: Annotated[
            str | None, strawberry.argument(description="Only those older than at this cursor.")
        ] = None,
    ) -> AuditConnection:
        context = info.context
        page = await audit_page(
            context.shared.identity,
            context.principal,
            wanted=AuditWanted() if filter is None else filter.wanted(),
            first=first,
            after=after,
        )
        return AuditConnection.of(page)
