"""Parse and validate each GraphQL document once, however often it is sent.

Both caches are keyed by the document's text and bounded by count and by length of text; a parsed
document takes 100 to 300 bytes of memory for each character. Failures are not kept, so that nobody
can fill the caches with nonsense.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    parse,
)
from graphql.validation import ASTValidationRule, NoSchemaIntrospectionCustomRule, validate
from strawberry.extensions import SchemaExtension
from strawberry.types.execution import ParseOptions

from market.errors import BargraphError
from market.lru import LRU
from web.graphql_request import RequestRefused
from web.limits.merging import bounded
from web.limits.shape import ShapeLimits, excess_of

PARSE_FAILED = "GRAPHQL_PARSE_FAILED"
VALIDATION_FAILED = "GRAPHQL_VALIDATION_FAILED"
MAX_ERRORS = 10
MAX_MESSAGE = 1_000
"""Characters of what a client is told of one mistake."""


class OperationNotDetermined(RequestRefused):
    """A document of which none, or more than one, operation could be meant."""

    code = "OPERATION_RESOLUTION_FAILURE"


@dataclass(frozen=True, slots=True)
class Operation:
    """The one operation of a document that a request asks for. *name* is None if it has none."""

    type: OperationType
    name: str | None


class Documents:
    """The documents that were parsed, and those found valid.

    A document has at most *max_length* characters, *max_tokens* tokens, as many comments and
    *max_lines* lines, and the *shape* allowed. Without *introspection* the schema cannot be asked
    for, without *suggestions* errors do not name what it has. The caches hold at most *max_count*
    documents of *max_cached* characters together.
    """

    def __init__(
        self,
        *,
        max_length: int = 100_000,
        max_tokens: int = 2_000,
        max_lines: int = 2_000,
        shape: ShapeLimits | None = None,
        introspection: bool = True,
        suggestions: bool = True,
        max_count: int = 1_000,
        max_cached: int = 250_000,
    ) -> None:
        self.limits: dict[str, Any] = {
            "max_source_length": max_length,
            "max_lexical_tokens": max_tokens,
            "max_comments": max_tokens,
        }
        self._max_lines = max_lines
        self._shape = shape or ShapeLimits()
        self._more_rules = () if introspection else (NoSchemaIntrospectionCustomRule,)
        self._suggestions = suggestions
        self._parsed: LRU[str, DocumentNode] = LRU(max_count=max_count, max_weight=max_cached)
        self._valid: LRU[tuple[object, ...], bool] = LRU(max_count=max_count, max_weight=max_cached)
        self.parses = 0
        self.validations = 0

    def parse(self, text: str) -> DocumentNode:
        """Return the document that *text* spells. Raises `GraphQLError` with `PARSE_FAILED`."""
        document = self._parsed.get(text)
        if document is None:
            self.parses += 1
            try:
                if text.count("\n") + text.count("\r") >= self._max_lines:
                    # Every place that an error names is found by counting lines from the start.
                    raise GraphQLError(
                        f"Document has more than {self._max_lines} lines. Parsing aborted."
                    )
                document = parse(text, **self.limits)
            except GraphQLError as error:
                error.extensions = {"code": PARSE_FAILED}
                raise
            self._parsed.put(text, document, weight=len(text))
        return document

    def validate(
        self,
        schema: GraphQLSchema,
        text: str,
        rules: tuple[type[ASTValidationRule], ...],
    ) -> list[GraphQLError]:
        """Return what is wrong with *text* by *schema* and *rules*: `VALIDATION_FAILED` errors."""
        key = (text, schema, rules)
        if self._valid.get(key):
            return []
        self.validations += 1
        document = self.parse(text)
        excess = excess_of(document, self._shape)
        if excess is not None:
            return [as_mistake(excess, VALIDATION_FAILED)]
        errors = validate(
            schema,
            document,
            (*bounded(rules), *self._more_rules),
            max_errors=MAX_ERRORS - 1,  # one more tells of an abort
            hide_suggestions=not self._suggestions,
        )
        if not errors:
            self._valid.put(key, True, weight=len(text))
        return [as_mistake(error, VALIDATION_FAILED) for error in errors]

    def extension(self) -> SchemaExtension:
        """Return the extension that makes a schema use these caches. A factory for schemas."""
        return _FromDocuments(self)


class _FromDocuments(SchemaExtension):
    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def on_parse(self) -> Iterator[None]:
        context = self.execution_context
        if context.query:
            try:
                context.graphql_document = self._documents.parse(context.query)
            except GraphQLError:
                # Strawberry parses once more: an error of its own parsing ends one operation, an
                # error raised here would end a whole socket.
                context.parse_options = cast("ParseOptions", self._documents.limits)
        yield

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        # Rules come from the context, because other extensions add theirs to it.
        if context.query and context.pre_execution_errors is None:
            context.pre_execution_errors = self._documents.validate(
                context.schema._schema,  # noqa: SLF001 - Strawberry has no public way to it
                context.query,
                context.validation_rules,
            )
        yield


def as_mistake(error: GraphQLError, code: str) -> GraphQLError:
    """Return *error* as the caller's mistake: with *code*, and no cause but an expected failure.

    A scalar that refuses a value leaves its exception as the cause, which is not a bug of ours.
    """
    cause = error.original_error
    while isinstance(cause, GraphQLError):
        cause = cause.original_error
    message = error.message
    if len(message) > MAX_MESSAGE:  # it quotes what was sent
        message = f"{message[: MAX_MESSAGE - 3]}..."
    return GraphQLError(
        message,
        error.nodes,
        original_error=cause if isinstance(cause, BargraphError) else None,
        extensions={"code": code, **(error.extensions or {})},
    )


def was_aborted(error: GraphQLError) -> bool:
    """Return whether graphql-core gave *error* for a limit that was passed, not for a mistake."""
    return error.message.endswith((" aborted.", " are nested too deeply."))


def find_operation(document: DocumentNode, name: str | None) -> Operation:
    """Return the operation of *document* called *name*, or its only one where *name* is None.

    Raises `OperationNotDetermined`.
    """
    operations = [
        definition
        for definition in document.definitions
        if isinstance(definition, OperationDefinitionNode)
    ]
    if not operations:
        raise OperationNotDetermined("Must provide an operation: the document has none.")
    if name is None and len(operations) > 1:
        raise OperationNotDetermined(
            "Must provide operation name if query contains multiple operations."
        )
    for operation in operations:
        own_name = operation.name.value if operation.name else None
        if name is None or own_name == name:
            return Operation(operation.operation, own_name)
    shown = name if len(name or "") <= 60 else f"{(name or '')[:57]}..."
    raise OperationNotDetermined(f"Unknown operation named {shown!r}.")
