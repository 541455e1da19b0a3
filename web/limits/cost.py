"""What answering an operation would cost, known before anything is executed.

A field costs 1 point each time it may be answered, and more under a long name. Lists count by
`first` and `last`, those without by the most they can have, or by a guess. A window costs 1 point a
bar, more if a bar is asked for more values than it has. Each fragment is weighed once: what depends
on where it is spread stays open until then.
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
from web.limits.sizes import DOCUMENT_BYTES, LENGTHS

LISTED = 10
"""Objects in a list of which neither the client nor `LENGTHS` says the length."""
SCHEMA_LISTED = 5
"""The same within the schema's description of itself, which is all in memory."""
BAR_VALUES = 12
"""Values of one bar, and of a gap beside it, that cost 1 point together: as many as a bar has."""
NAME_LENGTH = 32
"""Characters of a name in the answer that cost nothing: more than the schema's own names have."""
POINT_BYTES = 1024
"""Bytes of a saved document that cost 1 point, by the most it may have."""
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
        root = self.schema.get_root_type(operation.operation)
        return _total(self._selected(operation.selection_set, root), LISTED)

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
        """Return what a field costs, wherever it stands: also at the root by way of a fragment."""
        name = node.alias or node.name
        weight = Weight(len(name.value) // NAME_LENGTH)
        defined = self._definition(node.name.value, parent)
        if defined is None or parent is None:
            return weight + Weight(1)
        weight += Weight(self._begun(node, parent))
        if node.selection_set is None or is_leaf_type(get_named_type(defined.type)):
            size = DOCUMENT_BYTES.get((parent.name, node.name.value), 0)
            return weight + Weight(1 + size // POINT_BYTES)
        return weight + self._composite(node, defined, parent)

    def _begun(self, node: FieldNode, parent: GraphQLNamedType) -> int:
        """Return what is begun by a field of a root type, besides answering it."""
        if parent is self.schema.mutation_type:
            return MUTATED
        if parent is not self.schema.subscription_type:
            return 0
        if node.name.value == "bars":
            return SUBSCRIBED + SNAPSHOT
        return SUBSCRIBED * max(1, self._length(_argument(node, "symbols")))

    def _composite(
        self, node: FieldNode, defined: GraphQLField, parent: GraphQLNamedType
    ) -> Weight:
        """Return what objects cost, with all that is selected of them."""
        assert node.selection_set is not None
        of = get_named_type(defined.type)
        inner = self._selected(node.selection_set, of)
        if of.name == "CandleWindow":
            bars = min(self._number(node, defined, "last"), self.max_bars)
            return Weight(1 + inner.own + bars * max(1, _points(inner.bar_values)))
        if parent.name == "CandleWindow" and of.name in {"Candle", "CandleColumns", "Gap"}:
            # Of gaps there may be as many as of bars.
            return Weight(1, bar_values=inner.own)
        if parent.name == "BarSnapshot" and of.name == "Candle":
            # The first point of each bar is part of what subscribing costs.
            return Weight(1 + inner.own + SNAPSHOT * max(0, _points(inner.own) - 1))
        if of.name.endswith("Connection"):
            given = [self._value(_argument(node, name)) for name in ("first", "last")]
            sizes = [size for size in given if size is not None]
            size = max(sizes) if sizes else self._number(node, defined, "first")
            return Weight(1 + _total(inner, max(0, size)))
        listed = SCHEMA_LISTED if of.name.startswith("__") else LISTED
        once = 1 + _total(inner, listed)
        if not _is_list(defined):
            return Weight(once)
        if parent.name.endswith("Connection"):
            return Weight(each=once)
        return Weight(LENGTHS.get((parent.name, node.name.value), listed) * once)

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


def _points(bar_values: int) -> int:
    """Return what so many values of one bar cost."""
    return -(-bar_values // BAR_VALUES)


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
    """Return *given* with the defaults that *operation* has for what is not given.

    Of a list its length is told, not what is in it.
    """
    defaults: dict[str, Any] = {}
    for definition in operation.variable_definitions or ():
        name = definition.variable.name.value
        if name in given:
            continue
        match definition.default_value:
            case IntValueNode() as literal:
                defaults[name] = int(literal.value[:18])
            case ListValueNode() as literal:
                defaults[name] = [None] * len(literal.values)
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
