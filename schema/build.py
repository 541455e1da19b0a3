"""Put the schema together."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import strawberry
from graphql import GraphQLError, GraphQLSchema
from strawberry.extensions import SchemaExtension
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from schema.audited import audit_refusals
from schema.backfills import BackfillType
from schema.catalogue import MarketType, ProviderType, SymbolType
from schema.executor import BarExecutor, ReticentExecutor
from schema.identity.roots import IDENTITY_TYPES
from schema.mutation import Mutation
from schema.permissions import guard
from schema.query import Query
from schema.scalars import SCALARS
from schema.subscription import Subscription


class BargraphSchema(strawberry.Schema):
    """The schema; errors are logged where they are formatted, and only those that are bugs."""

    @property
    def core(self) -> GraphQLSchema:
        """The schema as graphql-core knows it."""
        return self._schema

    def process_errors(
        self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None
    ) -> None:
        """Leave logging to `schema.errors.format_error`, which knows bugs from mistakes."""


def build_schema(
    extensions: Iterable[type[SchemaExtension] | Callable[[], SchemaExtension]] = (),
    *,
    suggestions: bool = True,
) -> BargraphSchema:
    """Return the schema with *extensions* taking part in every execution.

    Each field at the root obeys its rule; one without a rule raises `NoRule`. Without
    *suggestions* wrong values are not answered with names that look like them.
    """
    schema = BargraphSchema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        types=[MarketType, ProviderType, SymbolType, BackfillType, *IDENTITY_TYPES],
        extensions=list(extensions),
        execution_context_class=BarExecutor if suggestions else ReticentExecutor,
        config=StrawberryConfig(scalar_map=SCALARS),
    )
    guard(schema.core)
    audit_refusals(schema.core)  # around the rules: what they refuse is written too
    return schema
