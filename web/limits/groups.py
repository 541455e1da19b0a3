"""What an operation counts as, and how often.

A document may hold many changes under aliases, such as tries at a password; each of them counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
)

from web.limits.fragments import fragments_of, innermost_first
from web.limits.rates import GROUP_OF_MUTATION, Group

_MANY = 1_000_000
"""More than any rate: fragments that spread each other make numbers of any length."""


def hits_of(document: DocumentNode, operation: OperationDefinitionNode) -> Mapping[Group, int]:
    """Return how often each group is hit by *operation* of *document*.

    Takes time in proportion to the length of *document*, valid or not.
    """
    if operation.operation is not OperationType.MUTATION:
        return {Group.QUERIES: 1}
    fragments = {name: node.selection_set for name, node in fragments_of(document).items()}
    spreads = {name: _roots(selected)[1] for name, selected in fragments.items()}
    hits: dict[str, Counter[Group]] = {}
    for name in innermost_first(spreads):
        hits[name] = _added(fragments[name], hits)
    found = _added(operation.selection_set, hits)
    return {group: min(count, _MANY) for group, count in found.items()}


def _added(selected: SelectionSetNode, hits: Mapping[str, Counter[Group]]) -> Counter[Group]:
    fields, spreads = _roots(selected)
    found = Counter(GROUP_OF_MUTATION[field] for field in fields if field in GROUP_OF_MUTATION)
    found[Group.MUTATIONS] = len(fields)
    for spread in spreads:
        found.update(hits.get(spread, {}))
    return found


def _roots(selected: SelectionSetNode) -> tuple[list[str], list[str]]:
    """Return the fields at the root of *selected*, and the fragments that bring more of them.

    What tells of the schema changes nothing and is left out.
    """
    fields: list[str] = []
    spreads: list[str] = []
    pending = [selected]
    while pending:
        for node in pending.pop().selections:
            if isinstance(node, FieldNode):
                if not node.name.value.startswith("__"):
                    fields.append(node.name.value)
            elif isinstance(node, FragmentSpreadNode):
                spreads.append(node.name.value)
            elif isinstance(node, InlineFragmentNode):
                pending.append(node.selection_set)
    return fields, spreads
