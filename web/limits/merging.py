"""Whether fields of one name can be merged, found out within bounds.

Graphql-core compares fields of one name with each other, and stops after half a million steps,
which take a second. The budget here is what an honest document of 2,000 tokens does not reach.
"""

from __future__ import annotations

from graphql import OverlappingFieldsCanBeMergedRule, ValidationContext
from graphql.validation import ASTValidationRule

MAX_STEPS = 10_000
"""About 25 ms. Two of them compare two fields."""


class FieldsCanBeMerged(OverlappingFieldsCanBeMergedRule):
    """The rule of the specification; validation is aborted after `MAX_STEPS`."""

    def __init__(self, context: ValidationContext) -> None:
        super().__init__(context)
        self.rule_context.remaining_complexity_budget = MAX_STEPS


def bounded(rules: tuple[type[ASTValidationRule], ...]) -> tuple[type[ASTValidationRule], ...]:
    """Return *rules* with those replaced whose time is not bounded well."""
    return tuple(
        FieldsCanBeMerged if rule is OverlappingFieldsCanBeMergedRule else rule for rule in rules
    )
