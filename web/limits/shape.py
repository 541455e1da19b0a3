"""How large a document is in the ways that make it costly to validate, in one pass over it.

Fragments count wherever they are spread, and each is walked once. Documents need not be valid: this
comes before validation, whose rules take more than linear time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from graphql import (
    DirectiveNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    ListValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    ValueNode,
)

from web.limits.fragments import innermost_first

_UNCOUNTABLE = 1_000_000_000
"""Where counting stops: fragments that spread each other make numbers of any length."""


@dataclass(frozen=True, slots=True)
class ShapeLimits:
    """The most that one document may have."""

    depth: int = 30
    """Levels of fields within each other."""
    aliases: int = 500
    directives: int = 100
    values: int = 250
    """Values in one literal, such as the items of a list that is written into the document."""


@dataclass(slots=True)
class Shape:
    """What a document, or one definition of it, has at most in one operation."""

    depth: int = 1
    aliases: int = 0
    directives: int = 0
    values: int = 0
    """Of its largest literal."""
    visited: int = 0
    """Nodes that were looked at to find out."""
    spreads: list[tuple[str, int]] = field(default_factory=list)
    """Which fragments are spread below how many levels of fields."""

    def take(self, inner: Shape, at: int) -> None:
        """Count what stands *at* so many levels deeper."""
        self.depth = max(self.depth, at + inner.depth)
        self.aliases = min(self.aliases + inner.aliases, _UNCOUNTABLE)
        self.directives = min(self.directives + inner.directives, _UNCOUNTABLE)
        self.values = max(self.values, inner.values)


def shape_of(document: DocumentNode) -> Shape:
    """Return the shape of *document*: that of its largest definition in each respect."""
    measured = [
        (definition, _measured(definition))
        for definition in document.definitions
        if isinstance(definition, OperationDefinitionNode | FragmentDefinitionNode)
    ]
    fragments: dict[str, Shape] = {}
    others: list[Shape] = []
    for definition, shape in measured:
        name = definition.name.value if isinstance(definition, FragmentDefinitionNode) else None
        if name is None or name in fragments:  # the second of one name is what validation refuses
            others.append(shape)
        else:
            fragments[name] = shape
    spreads = {name: [spread for spread, _ in shape.spreads] for name, shape in fragments.items()}
    for name in innermost_first(spreads):
        _resolve(fragments[name], fragments)
    whole = Shape()
    for shape in others:
        _resolve(shape, fragments)
    for _, shape in measured:
        whole.visited += shape.visited
        whole.depth = max(whole.depth, shape.depth)
        whole.aliases = max(whole.aliases, shape.aliases)
        whole.directives = max(whole.directives, shape.directives)
        whole.values = max(whole.values, shape.values)
    return whole


def excess_of(document: DocumentNode, limits: ShapeLimits) -> GraphQLError | None:
    """Return what *document* has more of than *limits* allow, as an error that states the limit."""
    shape = shape_of(document)
    for name, found, most, words in (
        ("depth", shape.depth, limits.depth, "Fields nest more than {} levels deep."),
        ("aliases", shape.aliases, limits.aliases, "Document has more than {} aliases."),
        ("directives", shape.directives, limits.directives, "Document has over {} directives."),
        (
            "values",
            shape.values,
            limits.values,
            "A literal has more than {} values: send it as a variable.",
        ),
    ):
        if found > most:
            message = f"{words.format(most)} Validation aborted."
            return GraphQLError(message, extensions={"limit": {"name": name, "most": most}})
    return None


def _resolve(shape: Shape, fragments: dict[str, Shape]) -> None:
    for name, at in shape.spreads:
        if (inner := fragments.get(name)) is not None and inner is not shape:
            shape.take(inner, at)


def _measured(definition: OperationDefinitionNode | FragmentDefinitionNode) -> Shape:
    """Return the shape of *definition* by itself."""
    shape = Shape()
    _count_directives(shape, definition.directives)
    if isinstance(definition, OperationDefinitionNode):
        for variable in definition.variable_definitions or ():
            shape.visited += 1
            _count_directives(shape, variable.directives)
            if variable.default_value is not None:
                _count_values(shape, variable.default_value)
    pending: list[tuple[SelectionSetNode, int]] = [(definition.selection_set, 1)]
    while pending:
        selected, depth = pending.pop()
        shape.depth = max(shape.depth, depth)
        for node in selected.selections:
            shape.visited += 1
            _count_directives(shape, node.directives)
            if isinstance(node, FieldNode):
                shape.aliases += node.alias is not None
                for argument in node.arguments or ():
                    _count_values(shape, argument.value)
                if node.selection_set:
                    pending.append((node.selection_set, depth + 1))
            elif isinstance(node, FragmentSpreadNode):
                shape.spreads.append((node.name.value, depth - 1))
            elif isinstance(node, InlineFragmentNode):  # adds no level of its own
                pending.append((node.selection_set, depth))
    return shape


def _count_directives(shape: Shape, directives: Iterable[DirectiveNode] | None) -> None:
    for directive in directives or ():
        shape.visited += 1
        shape.directives += 1
        for argument in directive.arguments or ():
            _count_values(shape, argument.value)


def _count_values(shape: Shape, literal: ValueNode) -> None:
    count = 0
    pending = [literal]
    while pending:
        value = pending.pop()
        count += 1
        if isinstance(value, ListValueNode):
            pending.extend(value.values)
        elif isinstance(value, ObjectValueNode):
            pending.extend(each.value for each in value.fields)
    shape.visited += count
    shape.values = max(shape.values, count)
