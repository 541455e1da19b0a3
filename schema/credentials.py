"""Keys at venues as their owner sees them: what is secret goes in and never comes out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, cast
from uuid import UUID

import strawberry
from pydantic import SecretStr

from db.accounts.errors import NotFound, VersionConflict
from db.accounts.repositories.credentials import Credential, CredentialSecrets
from market.errors import BargraphError, ProviderUnavailable
from plugins.credentials import KeyPermission
from resolvers.identity.credentials import (
    CredentialChange,
    NewCredential,
    Tried,
    add_credential,
    credential,
    credentials,
    delete_credential,
    try_credential,
    update_credential,
)
from resolvers.identity.failures import CredentialRefused
from schema.context import Context, Info
from schema.errors import refusal_of
from schema.failures import Failure, InvalidInput, NameTakenType, NotFoundType, TooManyType
from schema.identity.failures import CredentialInUseType
from schema.node import Node, global_id, uuid_in

KIND = "Credential"


@strawberry.type(
    name="Credential",
    description="A key of one's own at a venue, the only kind that trades. Kept encrypted; what is "
    "secret of it is never shown again.",
)
class CredentialType(Node):
    service: str = strawberry.field(description="The venue: `binance`, `alpaca`.")
    name: str = strawberry.field(description="What its owner calls it, unique at the venue.")
    testnet: bool = strawberry.field(
        description="Whether it opens the venue's testnet or paper account, without real money."
    )
    notes: str | None = strawberry.field(description="What its owner noted about it.")
    key_hint: str = strawberry.field(
        description="The last four characters of the key; empty where the key is short."
    )
    created_at: datetime = strawberry.field(description="When it was added.")
    updated_at: datetime = strawberry.field(description="When it was last changed.")
    last_checked_at: datetime | None = strawberry.field(
        description="When the venue last took these keys; null while they were not tried."
    )
    version: int = strawberry.field(
        description="Grows with each change; `updateCredential` takes it."
    )

    @classmethod
    def of(cls, credential: Credential) -> CredentialType:
        return cls(
            id=global_id(KIND, str(credential.id)),
            service=credential.service,
            name=credential.name,
            testnet=credential.testnet,
            notes=credential.notes,
            key_hint=credential.key_hint,
            created_at=credential.created_at,
            updated_at=credential.updated_at,
            last_checked_at=credential.last_checked_at,
            version=credential.version,
        )


@strawberry.input(description="What opens an account at a venue. Send it as a variable.")
class CredentialKeysInput:
    key: SecretStr = strawberry.field(description="The key, or its id.")
    secret: SecretStr = strawberry.field(description="Its secret, or a private key in PEM.")
    aux: SecretStr | None = strawberry.field(
        default=None,
        description="What some venues want besides: a passphrase (OKX, KuCoin, Bitget), or a user "
        "number.",
    )

    def secrets(self) -> CredentialSecrets:
        return CredentialSecrets(self.key, self.secret, self.aux)


@strawberry.input(description="A key at a venue.")
class AddCredentialInput:
    service: str = strawberry.field(description="The venue: `binance`, `alpaca`.")
    name: str = strawberry.field(
        description="What to call it, 1 to 80 characters, unique among one's own at the venue."
    )
    keys: CredentialKeysInput = strawberry.field(description="The key and what belongs to it.")
    testnet: bool | None = strawberry.field(
        default=False, description="Whether it is for the venue's testnet or paper account."
    )
    notes: str | None = strawberry.field(
        default=None, description="Anything worth noting, at most 2000 characters; no secrets."
    )


@strawberry.input(description="What is to be different about a credential. Null leaves it.")
class UpdateCredentialInput:
    id: strawberry.ID = strawberry.field(description="Its id.")
    version: int = strawberry.field(description="The version that the change was made to.")
    name: str | None = strawberry.field(default=None, description="Another name.")
    testnet: bool | None = strawberry.field(
        default=None, description="Whether it is for the testnet; refused while it is in use."
    )
    notes: str | None = strawberry.field(
        default=None, description="Other notes; empty text removes them."
    )
    keys: CredentialKeysInput | None = strawberry.field(
        default=None,
        description="Other keys, all together; refused while it is in use. They are yet to be "
        "tried.",
    )


@strawberry.input(description="Which credential to try.")
class TestCredentialInput:
    id: strawberry.ID = strawberry.field(description="Its id.")


@strawberry.input(description="Which credential to delete.")
class DeleteCredentialInput:
    id: strawberry.ID = strawberry.field(description="Its id.")
    version: int | None = strawberry.field(
        default=None,
        description="The version that is to be deleted, and no other; null: whatever it is now.",
    )


@strawberry.type(description="The credential is kept, encrypted. It was not tried yet.")
class CredentialAdded:
    credential: CredentialType = strawberry.field(description="It, as it is now.")


@strawberry.type(description="The credential is changed.")
class CredentialUpdated:
    credential: CredentialType = strawberry.field(description="It, as it is now.")


@strawberry.type(description="The venue took the keys.")
class CredentialTested:
    credential: CredentialType = strawberry.field(description="It, as it is now.")
    permissions: list[KeyPermission] = strawberry.field(
        description="What the keys may do, as far as the venue tells; READ is proved by the test."
    )

    @classmethod
    def of(cls, tried: Tried) -> CredentialTested:
        return cls(
            credential=CredentialType.of(tried.credential),
            permissions=[KeyPermission(each) for each in tried.permissions],
        )


@strawberry.type(description="The credential and its keys are gone for good.")
class CredentialDeleted:
    id: strawberry.ID = strawberry.field(description="The id that it had.")


@strawberry.type(description="It was changed by somebody else since it was read. Nothing was done.")
class CredentialVersionConflict(Failure):
    current: CredentialType = strawberry.field(description="It, as it is now.")


@strawberry.type(
    name="CredentialRefused", description="The venue answered, and did not take the keys."
)
class CredentialRefusedType(Failure):
    service: str = strawberry.field(description="The venue.")
    reason: str = strawberry.field(description="Why, for people; it never quotes the venue.")


@strawberry.type(
    description="The venue could not be asked. It says nothing about whether the keys are good."
)
class VenueUnavailable(Failure):
    service: str = strawberry.field(description="The venue.")
    retry_after: float | None = strawberry.field(
        description="Seconds until asking again makes sense; null where unknown."
    )


AddCredentialResult = Annotated[
    CredentialAdded | NameTakenType | TooManyType | InvalidInput,
    strawberry.union("AddCredentialResult", description="What comes of adding a credential."),
]
UpdateCredentialResult = Annotated[
    CredentialUpdated
    | NotFoundType
    | NameTakenType
    | CredentialVersionConflict
    | CredentialInUseType
    | InvalidInput,
    strawberry.union("UpdateCredentialResult", description="What comes of changing a credential."),
]
TestCredentialResult = Annotated[
    CredentialTested | NotFoundType | CredentialRefusedType | VenueUnavailable,
    strawberry.union("TestCredentialResult", description="What comes of trying a credential."),
]
DeleteCredentialResult = Annotated[
    CredentialDeleted | NotFoundType | CredentialVersionConflict | CredentialInUseType,
    strawberry.union("DeleteCredentialResult", description="What comes of deleting a credential."),
]


@strawberry.type
class CredentialQueries:
    @strawberry.field(description="One's own keys at venues, by venue and name.")
    async def credentials(self, info: Info) -> list[CredentialType]:
        context = info.context
        found = await credentials(context.shared.identity, context.principal)
        return [CredentialType.of(each) for each in found]


@strawberry.type
class CredentialMutations:
    @strawberry.mutation(
        description="Keep a key at a venue, encrypted. What is secret of it is never shown again."
    )
    async def add_credential(
        self,
        info: Info,
        input: Annotated[AddCredentialInput, strawberry.argument(description="The key.")],
    ) -> AddCredentialResult:
        context = info.context
        new = NewCredential(
            service=input.service,
            name=input.name,
            secrets=input.keys.secrets(),
            testnet=bool(input.testnet),
            notes=input.notes,
        )
        try:
            added = await add_credential(
                context.shared.identity, context.principal, new, origin=context.origin
            )
        except BargraphError as failure:
            return cast(AddCredentialResult, _refusal(failure))
        return CredentialAdded(credential=CredentialType.of(added))

    @strawberry.mutation(description="Change a credential as it was at a certain version.")
    async def update_credential(
        self,
        info: Info,
        input: Annotated[
            UpdateCredentialInput, strawberry.argument(description="Which one, and how.")
        ],
    ) -> UpdateCredentialResult:
        context = info.context
        change = CredentialChange(
            name=input.name,
            testnet=input.testnet,
            notes=input.notes,
            secrets=None if input.keys is None else input.keys.secrets(),
        )
        try:
            named = _id_in(input.id)
            try:
                updated = await update_credential(
                    context.shared.identity,
                    context.principal,
                    named,
                    change,
                    version=input.version,
                    origin=context.origin,
                )
            except VersionConflict as conflict:
                return await _conflict(context, named, conflict)
        except BargraphError as failure:
            return cast(UpdateCredentialResult, _refusal(failure))
        return CredentialUpdated(credential=CredentialType.of(updated))

    @strawberry.mutation(
        description="Ask the venue for the account that a credential opens, and say what it may do "
        "there. It takes up to half a minute, and orders nothing."
    )
    async def test_credential(
        self,
        info: Info,
        input: Annotated[TestCredentialInput, strawberry.argument(description="Which one.")],
    ) -> TestCredentialResult:
        context = info.context
        try:
            tried = await try_credential(
                context.shared.identity,
                context.principal,
                _id_in(input.id),
                origin=context.origin,
            )
        except BargraphError as failure:
            return cast(TestCredentialResult, _refusal(failure))
        return CredentialTested.of(tried)

    @strawberry.mutation(
        description="Delete a credential and its keys for good. Refused while something needs it."
    )
    async def delete_credential(
        self,
        info: Info,
        input: Annotated[DeleteCredentialInput, strawberry.argument(description="Which one.")],
    ) -> DeleteCredentialResult:
        context = info.context
        try:
            named = _id_in(input.id)
            try:
                await delete_credential(
                    context.shared.identity,
                    context.principal,
                    named,
                    version=input.version,
                    origin=context.origin,
                )
            except VersionConflict as conflict:
                return await _conflict(context, named, conflict)
        except BargraphError as failure:
            return cast(DeleteCredentialResult, _refusal(failure))
        return CredentialDeleted(id=input.id)


async def found_credential(context: Context, id: strawberry.ID) -> CredentialType | None:
    """Return the credential that a global id names; None where it is not one's own."""
    try:
        found = await credential(context.shared.identity, context.principal, _id_in(id))
    except NotFound:
        return None
    return CredentialType.of(found)


def _id_in(id: strawberry.ID) -> UUID:
    found = uuid_in(id, KIND)
    if found is None:
        raise NotFound("credential")
    return found


async def _conflict(
    context: Context, id: UUID, conflict: VersionConflict
) -> CredentialVersionConflict:
    current = await credential(context.shared.identity, context.principal, id)
    return CredentialVersionConflict(
        code=conflict.code, message=str(conflict), current=CredentialType.of(current)
    )


def _refusal(failure: BargraphError) -> Any:
    """Return what a mutation answers for *failure*; raise it where it ends the operation."""
    said: dict[str, Any] = {"code": failure.code, "message": str(failure)}
    match failure:
        case CredentialRefused():
            return CredentialRefusedType(**said, service=failure.service, reason=failure.reason)
        case ProviderUnavailable():
            return VenueUnavailable(
                **said, service=failure.provider, retry_after=failure.retry_after
            )
    return refusal_of(failure)
