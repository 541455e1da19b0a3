"""Complete bars in one pass instead of field by field, wherever the answer is the same.

GraphQL's executor asks each field of each row for its value. Rows of bars are columns already, so
they are written as JSON at once and leave as a fragment that only our own HTTP view can send. At
the slightest doubt (arguments, `@stream`, `@defer`, middleware, a value that GraphQL would refuse)
the ordinary executor answers, so that errors stay exactly those of GraphQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import orjson
from graphql import (
    FieldNode,
    GraphQLLeafType,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLResolveInfo,
    get_named_type,
)
from graphql.pyutils import Path
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from market.errors import BargraphError
from schema.candles import BarColumns, BarRows, CandleWindow, columns_of, rows_of
from schema.encoding import Selection, Unencodable, selection_of
from schema.prepared import LASTING, PREPARABLE, Fields, Notes, Window, WindowPlan
from schema.scalars import JSON_NAME

_OF_WINDOWS = frozenset({"Candle", "Gap"})
_MOST_FIELDS = 200_000
"""Fields of one answer outside its bars and gaps. Lists that lead to each other multiply."""
_MOST_DOCUMENT_BYTES = 16 * 1024 * 1024
"""JSON documents of one answer together, each as often as it stands there under an alias.

It is three times what one user may have saved.
"""


class AnswerTooLarge(BargraphError):
    """An answer of more fields, or larger documents, than one request may cost."""

    code = "COST_EXCEEDED"


class BarExecutor(StrawberryGraphQLCoreExecutionContext):
    """Strawberry's executor with a short cut for bars.

    *SUGGESTS* says whether wrong values are answered with names of the schema that look like them.
    """

    SUGGESTS: ClassVar[bool] = True

    @classmethod
    def build(cls, *args: Any, **options: Any) -> Any:
        """Return an executor, or what is wrong with the request."""
        options["hide_suggestions"] = not cls.SUGGESTS
        return super().build(*args, **options)

    def complete_iterable_value(
        self,
        item_type: GraphQLOutputType,
        field_details_list: Any,
        info: GraphQLResolveInfo[Any],
        path: Path,
        items: Iterable[Any],
        position_context: Any,
    ) -> Any:
        if isinstance(items, BarRows):
            row_type = get_named_type(item_type)
            if (
                position_context is None
                and isinstance(row_type, GraphQLObjectType)
                and self.get_stream_usage(field_details_list, path) is None
            ):
                text = self._written(row_type, field_details_list, items.written)
                if text is not None:
                    return text
            items = rows_of(items.bars)
        return super().complete_iterable_value(
            item_type, field_details_list, info, path, items, position_context
        )

    def complete_object_value(
        self,
        return_type: GraphQLObjectType,
        field_details_list: Any,
        info: GraphQLResolveInfo[Any],
        path: Path,
        result: Any,
        position_context: Any,
    ) -> Any:
        notes: Notes | None = getattr(self.context_value, "notes", None)
        if notes is not None:
            self._bound(notes, return_type, field_details_list)
            if return_type.name not in LASTING:
                notes.lasting = False
            elif isinstance(result, CandleWindow):
                plan = None if position_context else self._plan(return_type, field_details_list)
                _note_window(notes, result, plan, info, path)
        if isinstance(result, BarColumns):
            if position_context is None:
                text = self._written(return_type, field_details_list, result.written)
                if text is not None:
                    return text
            result = columns_of(result.answer.bars)
        return super().complete_object_value(
            return_type, field_details_list, info, path, result, position_context
        )

    def complete_leaf_value(  # type: ignore[override]  # graphql-core calls it by `self` as well
        self, return_type: GraphQLLeafType, result: Any
    ) -> Any:
        value = super().complete_leaf_value(return_type, result)
        return self._document(value) if return_type.name == JSON_NAME else value

    def _document(self, content: Any) -> Any:
        """Return a JSON document as text, written once however often it is asked for.

        Raises `AnswerTooLarge`.
        """
        notes: Notes | None = getattr(self.context_value, "notes", None)
        if notes is None:
            return content
        written = notes.documents.get(id(content))
        if written is None:
            # The document is kept as well: no other one can have its id meanwhile.
            written = notes.documents[id(content)] = (content, orjson.dumps(content))
        _, text = written
        notes.document_bytes += len(text)
        if notes.document_bytes > _MOST_DOCUMENT_BYTES:
            raise AnswerTooLarge(
                f"The documents of an answer hold at most {_MOST_DOCUMENT_BYTES} bytes together."
            )
        takes_fragments = getattr(self.context_value, "takes_fragments", False)
        return orjson.Fragment(text) if takes_fragments else content

    def _bound(self, notes: Notes, of: GraphQLObjectType, field_details_list: Any) -> None:
        """Count the fields of one object. Raises `AnswerTooLarge`."""
        if of.name in _OF_WINDOWS:
            return
        notes.fields += len(self.collect_subfields(of, field_details_list).grouped_field_set)
        if notes.fields > _MOST_FIELDS:
            raise AnswerTooLarge(f"An answer holds at most {_MOST_FIELDS} fields.")

    def _written(
        self,
        of: GraphQLObjectType,
        field_details_list: Any,
        write: Callable[[Selection], bytes],
    ) -> orjson.Fragment | None:
        """Return what *write* makes of the selection, None where the ordinary path must answer."""
        if not getattr(self.context_value, "takes_fragments", False):
            return None
        if self.middleware_manager and self.middleware_manager.middlewares:
            return None
        selection = self._selection(of, field_details_list)
        if selection is None:
            return None
        try:
            text = write(selection)
        except Unencodable:
            return None
        self.context_value.fragments += 1
        return orjson.Fragment(text)

    def _plan(self, of: GraphQLObjectType, field_details_list: Any) -> WindowPlan | None:
        """Return how to write a window as it is selected here, None if that takes more."""
        collected = self.collect_subfields(of, field_details_list)
        if collected.new_defer_usages:
            return None
        fields: list[tuple[str, str, Selection | Fields | None]] = []
        for name, details in collected.grouped_field_set.items():
            node = details[0].node
            field = node.name.value
            if field == "__typename":
                fields.append((name, field, None))
                continue
            if field not in PREPARABLE or _streams(node):
                return None
            inner = get_named_type(of.fields[field].type)
            if not isinstance(inner, GraphQLObjectType):
                fields.append((name, field, None))
                continue
            selection = self._selection(inner, details)
            if selection is None:
                return None
            bars = field in {"candles", "columns"}
            fields.append((name, field, selection if bars else selection.fields))
        return WindowPlan(tuple(fields))

    def _selection(self, of: GraphQLObjectType, field_details_list: Any) -> Selection | None:
        collected = self.collect_subfields(of, field_details_list)
        if collected.new_defer_usages:
            return None
        fields = []
        for name, details in collected.grouped_field_set.items():
            node = details[0].node
            of_field = node.name.value
            if node.arguments or (of_field != "__typename" and of_field not in of.fields):
                return None
            fields.append((name, of_field))
        return selection_of(tuple(fields), of.name)


class ReticentExecutor(BarExecutor):
    """One that names nothing of the schema to those who guess."""

    SUGGESTS = False


def _note_window(
    notes: Notes,
    window: CandleWindow,
    plan: WindowPlan | None,
    info: GraphQLResolveInfo[Any],
    path: Path,
) -> None:
    """Note how to answer *window* again, or that only the executor can."""
    if plan is None or window.request is None:
        notes.lasting = False
        return
    at_root = path.prev is None and info.field_name == "candles"
    node = info.field_nodes[0] if at_root else None
    notes.windows.append(Window(tuple(path.as_list()), window.request, plan, node))


def _streams(node: FieldNode) -> bool:
    return any(directive.name.value == "stream" for directive in node.directives or ())
