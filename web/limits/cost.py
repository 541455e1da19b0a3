"""What answering an operation would cost, known before anything is executed.

A field costs 1 point each time it may be answered. Lists count by `first` and `last`, those without
by a guess. A window costs 1 point a bar, more if a bar is asked for more values than it has. Each
fragment is weighed once: what depends on where it is spread stays open until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    ArgumentNode,
    DocumentNode,
    FieldNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    OperationDefinitionNode,
    OperationType,
    SchemaMetaFieldDef,
    SelectionSetNode,
    TypeMetaFieldDef,
    VariableNode,
    get_named_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
)

from web.limits.fragments import fragments_of, innermost_first

LISTED = 10
"""Objects in a list that nobody says the length of."""
SCHEMA_LISTED = 5
"""The same within the schema's description of itself, which is all in memory."""
BAR_VALUES = 12
"""Values of one bar that cost 1 point together: as many as it has."""
MUTATED = 10
SUBSCRIBED = 100
"""For each series, book or symbol that is followed."""
SNAPSHOT = 500
"""Bars with which a subscription to bars begins."""

_BOUND = 1_000_000_000_000
"""Where adding up stops."""
Variables = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cost:
    """Points that an operation costs, and points that one may cost."""

    requested: int
    available: int

    @property
    def shown(self) -> dict[str, int]:
        """What a client is told in `extensions.cost`."""
        return {"requested": self.requested, "available": self.available}


@dataclass(frozen=True, slots=True)
class Weight:
    """What selections cost: once, for each item of the connection they stand in, for each bar."""

    own: int = 0
    each: int = 0
    bar_values: int = 0

    def __add__(self, other: Weight) -> Weight:
        return Weight(
            min(self.own + other.own, _BOUND),
            min(self.each + other.each, _BOUND),
            min(self.bar_values + other.bar_values, _BOUND),
        )


class Costs:
    """Weighs the operations of one schema, of which each may cost *available* points.

    No window has more than *max_bars* bars.
    """

    def __init__(self, schema: GraphQLSchema, *, available: int, max_bars: int) -> None:
        self.available = available
        self._schema = schema
        self._max_bars = max_bars

    def of(
        self,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        variables: Variables | None = None,
    ) -> tuple[Cost, bool]:
        """Return what *operation* of the valid *document* costs, and whether it always does.

        What it costs may depend on *variables*. Takes time in proportion to the length of
        *document*.
        """
        weighing = _Weighing(self._schema, self._max_bars, _values(operation, variables or {}))
        weighing.weigh_fragments(document)
        requested = weighing.operation(operation)
        return Cost(requested, self.available), not weighing.varies


@dataclass(slots=True)
class _Weighing:
    """One operation on the scales.

    *visited* counts the nodes that were looked at; *varies* says that a variable was.
    """

    schema: GraphQLSchema
    max_bars: int
    variables: Variables
    visited: int = 0
    varies: bool = False
    fragments: dict[str, Weight] = field(default_factory=dict)

    def weigh_fragments(self, document: DocumentNode) -> None:
        found = fragments_of(document)
        spreads = {name: _spreads(node.selection_set) for name, node in found.items()}
        for name in innermost_first(spreads):
            of = self.schema.type_map.get(found[name].type_condition.name.value)
            self.fragments[name] = self._selected(found[name].selection_set, of)

    def operation(self, operation: OperationDefinitionNode) -> int:
        weight = self._selected(
            operation.selection_set, self.schema.get_root_type(operation.operation)
        )
        total = _total(weight, LISTED)
        roots = len(operation.selection_set.selections)
        if operation.operation is OperationType.MUTATION:
            total += MUTATED * roots
        elif operation.operation is OperationType.SUBSCRIPTION:
            total += sum(
                self._followed(node)
                for node in operation.selection_set.selections
                if isinstance(node, FieldNode)
            )
        return total

    def _followed(self, node: FieldNode) -> int:
        if node.name.value == "bars":
            return SUBSCRIBED + SNAPSHOT
        return SUBSCRIBED * max(1, self._length(_argument(node, "symbols")))

    def _selected(self, selected: SelectionSetNode, parent: GraphQLNamedType | None) -> Weight:
        weight = Weight()
        for node in selected.selections:
            self.visited += 1
            if isinstance(node, FieldNode):
                weight += self._field(node, parent)
            elif isinstance(node, FragmentSpreadNode):
                weight += self.fragments.get(node.name.value, Weight())
            elif isinstance(node, InlineFragmentNode):
                condition = node.type_condition
                of = self.schema.type_map.get(condition.name.value) if condition else parent
                weight += self._selected(node.selection_set, of)
        return weight

    def _field(self, node: FieldNode, parent: GraphQLNamedType | None) -> Weight:
        defined = self._definition(node.name.value, parent)
        if defined is None or node.selection_set is None:
            return Weight(1)
        of = get_named_type(defined.type)
        if is_leaf_type(of):
            return Weight(1)
        inner = self._selected(node.selection_set, of)
        if of.name == "CandleWindow":
            bars = min(self._number(node, defined, "last"), self.max_bars)
            values = -(-inner.bar_values // BAR_VALUES)
            return Weight(1 + inner.own + bars * max(1, values))
        within = parent.name if parent is not None else ""
        if within == "CandleWindow" and of.name in {"Candle", "CandleColumns"}:
            return Weight(1, bar_values=inner.own)
        if of.name.endswith("Connection"):
            given = [self._value(_argument(node, name)) for name in ("first", "last")]
            sizes = [size for size in given if size is not None]
            size = max(sizes) if sizes else self._number(node, defined, "first")
            return Weight(1 + _total(inner, max(0, size)))
        listed = SCHEMA_LISTED if of.name.startswith("__") else LISTED
        if not _is_list(defined):
            return Weight(1 + _total(inner, listed))
        if within.endswith("Connection"):
            return Weight(each=1 + _total(inner, listed))
        return Weight(listed * (1 + _total(inner, listed)))

    def _definition(self, name: str, parent: GraphQLNamedType | None) -> GraphQLField | None:
        if name == "__schema":
            return SchemaMetaFieldDef
        if name == "__type":
            return TypeMetaFieldDef
        fields: Mapping[str, GraphQLField] = getattr(parent, "fields", {})
        return fields.get(name)

    def _number(self, node: FieldNode, defined: GraphQLField, name: str) -> int:
        """Return what the argument *name* says, or its default; 0 where there is neither.

        What is no number is refused later, and costs what the default does.
        """
        if (given := self._value(_argument(node, name))) is None:
            argument = defined.args.get(name)
            given = _default(argument.default_value) if argument is not None else 0
        return max(0, given)

    def _value(self, argument: ArgumentNode | None) -> int | None:
        match argument.value if argument is not None else None:
            case IntValueNode() as literal:
                return int(literal.value[:18])
            case VariableNode() as variable:
                self.varies = True
                value = self.variables.get(variable.name.value)
                return int(value) if isinstance(value, int | float) and value < _BOUND else None
            case _:
                return None

    def _length(self, argument: ArgumentNode | None) -> int:
        match argument.value if argument is not None else None:
            case ListValueNode() as literal:
                return len(literal.values)
            case VariableNode() as variable:
                self.varies = True
                value = self.variables.get(variable.name.value)
                return len(value) if isinstance(value, list) else 1
            case _:
                return 1


def _total(weight: Weight, size: int) -> int:
    return min(weight.own + size * weight.each, _BOUND)


def _default(value: object) -> int:
    return value if isinstance(value, int) else 0


def _is_list(defined: GraphQLField) -> bool:
    of = defined.type
    return is_list_type(of.of_type if is_non_null_type(of) else of)


def _argument(node: FieldNode, name: str) -> ArgumentNode | None:
    for argument in node.arguments or ():
        if argument.name.value == name:
            return argument
    return None


def _values(operation: OperationDefinitionNode, given: Variables) -> Variables:
    """Return *given* with the defaults that *operation* has for what is not given."""
    defaults = {}
    for definition in operation.variable_definitions or ():
        name = definition.variable.name.value
        if name not in given and isinstance(definition.default_value, IntValueNode):
            defaults[name] = int(definition.default_value.value[:18])
    return {**given, **defaults} if defaults else given


def _spreads(selected: SelectionSetNode) -> list[str]:
    found = []
    pending = [selected]
    while pending:
        for node in pending.pop().selections:
            if isinstance(node, FragmentSpreadNode):
                found.append(node.name.value)
            elif isinstance(node, FieldNode | InlineFragmentNode) and node.selection_set:
                pending.append(node.selection_set)
    return found
