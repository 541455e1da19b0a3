"""Users as they see themselves: what they tell of themselves, take along, and delete."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, cast

import strawberry
from pydantic import SecretStr

from db.accounts.permissions import Role
from db.accounts.repositories.users import User
from market.errors import BargraphError
from resolvers.identity.exporting import MOST_LINES, export_account
from resolvers.identity.leaving import delete_account
from resolvers.identity.principal import Principal
from resolvers.identity.profile import ProfileChange, me, update_profile
from resolvers.identity.second_factor import state_of
from schema.context import Info
from schema.errors import failure_of, refusal_of
from schema.failures import InvalidInput
from schema.identity.failures import (
    CodeNeededType,
    CredentialInUseType,
    LastAdminType,
    TooManyCodesType,
    WrongCodeType,
    WrongPasswordType,
)
from schema.identity.guesses import guessing
from schema.node import Node, global_id
from schema.scalars import Json


@strawberry.type(name="SecondFactor", description="Whether signing in takes a one-time code.")
class SecondFactorType:
    is_on: bool = strawberry.field(description="Whether it does.")
    recovery_codes_left: int | None = strawberry.field(
        description="How many recovery codes were not used yet; null where it does not."
    )


@strawberry.type(name="User", description="An account. Everybody sees their own only.")
class UserType(Node):
    username: str = strawberry.field(description="The name to sign in with.")
    email: str = strawberry.field(description="The address that mail goes to.")
    email_verified: bool = strawberry.field(description="Whether the address was proved.")
    role: Role = strawberry.field(description="What they are to this server.")
    nickname: str | None = strawberry.field(description="What they want to be called.")
    location: str | None = strawberry.field(description="Where they say they are.")
    bio: str | None = strawberry.field(description="What they tell of themselves.")
    registered_at: datetime = strawberry.field(description="When the account was made.")
    last_login: datetime | None = strawberry.field(description="When they signed in last.")

    principal: strawberry.Private[Principal]

    @strawberry.field(description="One-time codes as a second factor.")
    async def second_factor(self, info: Info) -> SecondFactorType:
        context, principal = info.context, self.principal
        state = await context.once(
            ("second factor", principal.user_id),
            lambda: state_of(context.shared.identity, principal),
        )
        return SecondFactorType(is_on=state.is_on, recovery_codes_left=state.recovery_codes_left)

    @classmethod
    def of(cls, user: User, principal: Principal) -> UserType:
        return cls(
            id=global_id("User", user.id.hex),
            username=user.username,
            email=user.email,
            email_verified=user.email_verified_at is not None,
            role=user.role,
            nickname=user.nickname,
            location=user.location,
            bio=user.bio,
            registered_at=user.registered_at,
            last_login=user.last_login,
            principal=principal,
        )


@strawberry.input(description="What of the profile is to be another; what is left out stays.")
class UpdateProfileInput:
    nickname: str | None = strawberry.field(
        default=strawberry.UNSET, description="Up to 80 characters; null: none."
    )
    location: str | None = strawberry.field(
        default=strawberry.UNSET, description="Up to 120 characters; null: none."
    )
    bio: str | None = strawberry.field(
        default=strawberry.UNSET, description="Up to 2,000 characters; null: none."
    )


@strawberry.input(description="The password once more.")
class ExportAccountInput:
    password: SecretStr = strawberry.field(description="The password.")


@strawberry.input(description="Proof of who deletes the account.")
class DeleteAccountInput:
    password: SecretStr = strawberry.field(description="The password.")
    code: SecretStr | None = strawberry.field(
        default=None, description="A one-time code or a recovery code, where they are on."
    )


@strawberry.type(description="The account with its new profile.")
class ProfileUpdated:
    user: UserType = strawberry.field(description="The account.")


@strawberry.type(description="Everything that is kept about somebody.")
class AccountExported:
    exported_at: datetime = strawberry.field(description="When.")
    content: Json = strawberry.field(
        description="A JSON object: user, sessions, API tokens, credentials, saved work, and the "
        f"newest {MOST_LINES:,} lines of the audit log, without secrets. At most 10 MB."
    )


@strawberry.type(description="The account is gone, with all that was in it.")
class AccountDeleted:
    username: str = strawberry.field(description="The name it had.")


UpdateProfileResult = Annotated[
    ProfileUpdated | InvalidInput,
    strawberry.union("UpdateProfileResult", description="What comes of changing a profile."),
]
ExportAccountResult = Annotated[
    AccountExported | WrongPasswordType,
    strawberry.union("ExportAccountResult", description="What comes of exporting an account."),
]
DeleteAccountResult = Annotated[
    AccountDeleted
    | WrongPasswordType
    | CodeNeededType
    | WrongCodeType
    | TooManyCodesType
    | CredentialInUseType
    | LastAdminType,
    strawberry.union("DeleteAccountResult", description="What comes of deleting an account."),
]


@strawberry.type
class AccountQueries:
    @strawberry.field(description="The account that asks; an error where nobody is signed in.")
    async def me(self, info: Info) -> UserType | None:
        context = info.context
        return UserType.of(await me(context.shared.identity, context.principal), context.principal)


@strawberry.type
class AccountMutations:
    @strawberry.mutation(description="Change what one tells of oneself.")
    async def update_profile(
        self,
        info: Info,
        input: Annotated[UpdateProfileInput, strawberry.argument(description="What changes.")],
    ) -> UpdateProfileResult:
        context = info.context
        change = ProfileChange()
        if input.nickname is not strawberry.UNSET:
            change["nickname"] = input.nickname
        if input.location is not strawberry.UNSET:
            change["location"] = input.location
        if input.bio is not strawberry.UNSET:
            change["bio"] = input.bio
        try:
            user = await update_profile(
                context.shared.identity, context.principal, origin=context.origin, **change
            )
        except BargraphError as failure:
            return cast(UpdateProfileResult, refusal_of(failure))
        return ProfileUpdated(user=UserType.of(user, context.principal))

    @strawberry.mutation(
        description="Take everything along that is kept about oneself. Nothing is changed."
    )
    async def export_account(
        self,
        info: Info,
        input: Annotated[ExportAccountInput, strawberry.argument(description="Proof.")],
    ) -> ExportAccountResult:
        context = info.context
        identity, principal = context.shared.identity, await guessing(context)
        try:
            exported = await export_account(
                identity, principal, input.password, origin=context.origin
            )
        except BargraphError as failure:
            return cast(ExportAccountResult, failure_of(failure))
        return AccountExported(exported_at=identity.now(), content=Json(exported))

    @strawberry.mutation(
        description="Delete the account and all that is one's own, for good. Sessions, API tokens "
        "and private subscriptions end at once."
    )
    async def delete_account(
        self,
        info: Info,
        input: Annotated[DeleteAccountInput, strawberry.argument(description="Proof.")],
    ) -> DeleteAccountResult:
        context = info.context
        principal = await guessing(context)
        try:
            await delete_account(
                context.shared.identity,
                principal,
                input.password,
                code=None if input.code is None else input.code.get_secret_value(),
                origin=context.origin,
            )
        except BargraphError as failure:
            return cast(DeleteAccountResult, failure_of(failure))
        if context.cookie is not None:
            context.cookie.dropped = True
        return AccountDeleted(username=principal.username)
