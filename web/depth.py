"""How deep a document nests its selections, in time linear in its length.

Fragments count where they are spread, each measured once. Deeper documents than the executor's
stack can follow would fail half way, as bugs of ours.
"""

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
)

Spreads = list[tuple[str, int]]


def depth_of(document: DocumentNode) -> int:
    """Return the deepest nesting of fields in any operation of *document*, at least 1.

    The document must be valid: its fragments exist and form no cycle.
    """
    fragments = {
        definition.name.value: _measure(definition.selection_set)
        for definition in document.definitions
        if isinstance(definition, FragmentDefinitionNode)
    }
    depths: dict[str, int] = {}

    def total(own: int, spreads: Spreads) -> int:
        for name, at in spreads:
            if name not in depths:
                depths[name] = total(*fragments[name])
            own = max(own, at + depths[name])
        return own

    return max(
        total(*_measure(definition.selection_set))
        for definition in document.definitions
        if isinstance(definition, OperationDefinitionNode)
    )


def _measure(selection_set: SelectionSetNode) -> tuple[int, Spreads]:
    """Return the depth of a definition by itself, and how deep it spreads which fragments."""
    deepest = 1
    spreads: Spreads = []
    pending = [(selection_set, 1)]
    while pending:
        selected, depth = pending.pop()
        deepest = max(deepest, depth)
        for selection in selected.selections:
            if isinstance(selection, FragmentSpreadNode):
                spreads.append((selection.name.value, depth - 1))
            elif isinstance(selection, FieldNode):
                if selection.selection_set:
                    pending.append((selection.selection_set, depth + 1))
            elif isinstance(selection, InlineFragmentNode):  # adds no level of its own
                pending.append((selection.selection_set, depth))
    return deepest, spreads
