"""Tell which variables of a subscription say only where one viewer resumes.

After a restart every client brings a cursor of its own. What is sent to them from then on is the
same, so such variables are no part of what makes operations differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableDefinitionNode,
    VariableNode,
    Visitor,
    VisitorAction,
    visit,
)

RESUME = "after"
"""The argument of a subscription's field that names the place to resume at."""

_Fragments = dict[str, FragmentDefinitionNode]


def shared_variables(document: DocumentNode, operation: OperationDefinitionNode) -> frozenset[str]:
    """Return the variables of *operation* but those that are used as `RESUME` at the root alone."""
    fragments = {
        definition.name.value: definition
        for definition in document.definitions
        if isinstance(definition, FragmentDefinitionNode)
    }
    uses = Counter(_uses([operation, *fragments.values()]))
    resumes = Counter(
        argument.value.name.value
        for field in _root_fields(operation.selection_set, fragments, set())
        for argument in field.arguments or ()
        if argument.name.value == RESUME and isinstance(argument.value, VariableNode)
    )
    declared = {
        definition.variable.name.value for definition in operation.variable_definitions or ()
    }
    return frozenset(
        name for name in declared if name not in resumes or uses[name] != resumes[name]
    )


def _root_fields(
    selected: SelectionSetNode, fragments: _Fragments, spread: set[str]
) -> Iterator[FieldNode]:
    """Yield each field node at the root once, however often its fragment is spread."""
    for selection in selected.selections:
        if isinstance(selection, FieldNode):
            yield selection
        elif isinstance(selection, FragmentSpreadNode):
            name = selection.name.value
            if name not in spread:
                spread.add(name)
                yield from _root_fields(fragments[name].selection_set, fragments, spread)
        elif isinstance(selection, InlineFragmentNode):
            yield from _root_fields(selection.selection_set, fragments, spread)


def _uses(definitions: list[OperationDefinitionNode | FragmentDefinitionNode]) -> Iterator[str]:
    found: list[str] = []

    class Uses(Visitor):
        def enter_variable_definition(
            self, _node: VariableDefinitionNode, *_where: object
        ) -> VisitorAction:
            return self.SKIP

        def enter_variable(self, node: VariableNode, *_where: object) -> None:
            found.append(node.name.value)

    for definition in definitions:
        visit(definition, Uses())
    return iter(found)
