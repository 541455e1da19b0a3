"""The fragments of a document in an order in which each comes after those that it spreads.

Whoever measures fragments in that order measures each once, however often and however deep they are
spread, without following the spreads on the stack.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from graphql import DocumentNode, FragmentDefinitionNode


def fragments_of(document: DocumentNode) -> dict[str, FragmentDefinitionNode]:
    """Return the fragments of *document* by name; of several with one name the first."""
    found: dict[str, FragmentDefinitionNode] = {}
    for definition in document.definitions:
        if isinstance(definition, FragmentDefinitionNode):
            found.setdefault(definition.name.value, definition)
    return found


def innermost_first(spreads: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the keys of *spreads*, each after those it names.

    Takes time in proportion to the spreads. Names that are no key are passed over. Of a cycle one
    member comes before one that it names: a document with a cycle is not valid, which others say.
    """
    ordered: list[str] = []
    seen: set[str] = set()
    for root in spreads:
        if root in seen:
            continue
        seen.add(root)
        path: list[tuple[str, Iterator[str]]] = [(root, iter(spreads[root]))]
        while path:
            name, inner = path[-1]
            for spread in inner:
                if spread in spreads and spread not in seen:
                    seen.add(spread)
                    path.append((spread, iter(spreads[spread])))
                    break
            else:
                path.pop()
                ordered.append(name)
    return ordered
