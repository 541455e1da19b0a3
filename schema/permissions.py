"""Who may ask for what: the one place that decides, a rule for each field at the root.

The rules are tied to the fields when the schema is built, and a field without one cannot be built.
Everything below a root is reached through it; an entity is also reached by its id through `node`,
so each kind of entity has a rule besides. What is a user's own is looked up by that user's id, so
that another's reads as not found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from graphql import GraphQLField, GraphQLInterfaceType, GraphQLObjectType, GraphQLSchema

from db.accounts.permissions import Permission
from resolvers.callers import Caller
from resolvers.identity.failures import Unauthenticated


class Access(Enum):
    """Rules that name no permission."""

    ANYBODY = "anybody"
    """What signs people in, or tells nothing of anybody."""
    MARKET_DATA = "market data"
    """Anybody, unless `PUBLIC_MARKET_DATA` says that it takes an account."""
    SIGNED_IN = "signed in"


Rule = Access | Permission
_OWN = Permission.ACCOUNT_CHANGE

_SAME_FOR_ALL = (Access.ANYBODY, Access.MARKET_DATA)

ROOTS: Mapping[str, Rule] = {
    "Query.markets": Access.MARKET_DATA,
    "Query.providers": Access.MARKET_DATA,
    "Query.symbols": Access.MARKET_DATA,
    "Query.instrument": Access.MARKET_DATA,
    "Query.candles": Access.MARKET_DATA,
    "Query.node": Access.ANYBODY,  # each kind has a rule of its own, below
    "Query.backfill": Access.SIGNED_IN,
    "Query.backfills": Access.SIGNED_IN,
    "Query.me": Permission.ACCOUNT_READ,
    "Query.sessions": Permission.ACCOUNT_READ,
    "Query.apiTokens": Permission.ACCOUNT_READ,
    "Query.auditLog": Permission.ACCOUNT_READ,
    "Query.preferences": Permission.ACCOUNT_READ,
    "Query.chartLayouts": Permission.ACCOUNT_READ,
    "Query.indicatorPresets": Permission.ACCOUNT_READ,
    "Query.credentials": Permission.CREDENTIALS_READ,
    "Mutation.register": Access.ANYBODY,
    "Mutation.verifyEmail": Access.ANYBODY,
    "Mutation.requestVerification": Access.ANYBODY,
    "Mutation.login": Access.ANYBODY,
    "Mutation.refresh": Access.ANYBODY,
    "Mutation.logout": Access.ANYBODY,  # by the refresh token, where the access token is over
    "Mutation.requestPasswordReset": Access.ANYBODY,
    "Mutation.resetPassword": Access.ANYBODY,
    "Mutation.updateProfile": _OWN,
    "Mutation.changeEmail": _OWN,
    "Mutation.changePassword": _OWN,
    "Mutation.endSession": _OWN,
    "Mutation.exportAccount": _OWN,
    "Mutation.deleteAccount": _OWN,
    "Mutation.enrolSecondFactor": _OWN,
    "Mutation.confirmSecondFactor": _OWN,
    "Mutation.turnOffSecondFactor": _OWN,
    "Mutation.createApiToken": Permission.TOKENS_CHANGE,
    "Mutation.revokeApiToken": _OWN,
    "Mutation.addCredential": Permission.CREDENTIALS_CHANGE,
    "Mutation.updateCredential": Permission.CREDENTIALS_CHANGE,
    "Mutation.testCredential": Permission.CREDENTIALS_CHANGE,
    "Mutation.deleteCredential": Permission.CREDENTIALS_CHANGE,
    "Mutation.savePreferences": Permission.SAVED_WORK_CHANGE,
    "Mutation.saveChartLayout": Permission.SAVED_WORK_CHANGE,
    "Mutation.deleteChartLayout": Permission.SAVED_WORK_CHANGE,
    "Mutation.saveIndicatorPreset": Permission.SAVED_WORK_CHANGE,
    "Mutation.deleteIndicatorPreset": Permission.SAVED_WORK_CHANGE,
    "Mutation.startBackfill": Permission.BACKFILLS_RUN,
    "Mutation.cancelBackfill": Permission.BACKFILLS_RUN,
    "Subscription.bars": Access.MARKET_DATA,
    "Subscription.trades": Access.MARKET_DATA,
    "Subscription.orderBook": Access.MARKET_DATA,
    "Subscription.ticker": Access.MARKET_DATA,
    "Subscription.backfillProgress": Access.SIGNED_IN,
}
"""What each field at the root takes."""

NODES: Mapping[str, Rule] = {
    "Market": Access.MARKET_DATA,
    "Provider": Access.MARKET_DATA,
    "Symbol": Access.MARKET_DATA,
    "Backfill": Access.SIGNED_IN,
    "User": Permission.ACCOUNT_READ,
    "UserSession": Permission.ACCOUNT_READ,
    "ApiToken": Permission.ACCOUNT_READ,
    "ChartLayout": Permission.ACCOUNT_READ,
    "IndicatorPreset": Permission.ACCOUNT_READ,
    "Credential": Permission.CREDENTIALS_READ,
}
"""What it takes to find each kind of entity by its id."""


class NoRule(Exception):
    """Fields that nobody decided about; the schema is not built."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """The rules as this server has them."""

    public_market_data: bool = True

    def is_public(self, rule: Rule) -> bool:
        """Whether *rule* lets anybody in, so that all see the same."""
        return rule is Access.ANYBODY or (rule is Access.MARKET_DATA and self.public_market_data)

    def check(self, rule: Rule, caller: Caller) -> None:
        """Return if *caller* may. Raises `Unauthenticated`, `Forbidden`, and whatever kept us from
        finding out who asks.
        """
        if self.is_public(rule):
            return
        if caller.principal is None:
            raise caller.doubt or Unauthenticated
        if isinstance(rule, Permission):
            caller.principal.check(rule)

    def reads_market(self, caller: Caller) -> bool:
        """Whether *caller* may read market data."""
        return self.public_market_data or caller.principal is not None


def guard(schema: GraphQLSchema) -> None:
    """Make every field at the root of *schema* obey its rule. Raises `NoRule`."""
    roots = (schema.query_type, schema.mutation_type, schema.subscription_type)
    for root in roots:
        for name, field in root.fields.items() if root is not None else ():
            _guard_field(field, _rule_of(ROOTS, f"{root}.{name}"), watched=root is roots[2])
    node = schema.get_type("Node")
    assert isinstance(node, GraphQLInterfaceType)
    for kind in schema.get_possible_types(node):
        _rule_of(NODES, kind.name)


def _guard_field(field: GraphQLField, rule: Rule, *, watched: bool) -> None:
    # Of a subscription whoever asks is known when it begins; its events are for whoever is let in.
    ordinary: Callable[..., Any] | None = field.subscribe if watched else field.resolve
    assert ordinary is not None

    def checked(source: Any, info: Any, **arguments: Any) -> Any:
        context = info.context
        permissions: Permissions = context.shared.permissions
        permissions.check(rule, context.caller)
        if not permissions.is_public(rule):
            context.guarded.append(rule)
        if rule not in _SAME_FOR_ALL:
            # Even an empty list is somebody's own: it is no answer for the next who asks.
            context.notes.lasting = False
        return ordinary(source, info, **arguments)

    if watched:
        field.subscribe = checked
    else:
        field.resolve = checked


def _rule_of(rules: Mapping[str, Rule], name: str) -> Rule:
    rule = rules.get(name)
    if rule is None:
        raise NoRule(f"schema/permissions.py has no rule for {name}.")
    return rule


def roots_of(schema: GraphQLSchema) -> list[str]:
    """Return every field at the root of *schema*, as the rules name them."""
    found: list[str] = []
    for root in (schema.query_type, schema.mutation_type, schema.subscription_type):
        if isinstance(root, GraphQLObjectType):
            found += [f"{root.name}.{name}" for name in root.fields]
    return found
