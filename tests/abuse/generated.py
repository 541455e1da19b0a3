"""Operations that Schemathesis makes up from the schema, in the forms in which clients ask."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import schemathesis
from graphql import (
    ArgumentNode,
    DocumentNode,
    FieldNode,
    GraphQLInputObjectType,
    NameNode,
    ObjectFieldNode,
    OperationDefinitionNode,
    StringValueNode,
    VariableDefinitionNode,
    VariableNode,
    get_named_type,
    introspection_from_schema,
    parse_type,
    print_ast,
    value_from_ast_untyped,
    visit,
)
from graphql.language import Visitor
from hypothesis import strategies as st
from schemathesis.graphql import nodes
from schemathesis.schemas import APIOperation

from schema.build import build_schema
from schema.node import global_id
from schema.permissions import NODES

CORE = build_schema().core
_INTEGERS = st.integers(-(2**60), 2**60) | st.integers(1_759_000_000_000, 1_761_000_000_000)
_TEXTS = st.text(max_size=20) | st.sampled_from(["", "\x00", "\ud7ff", "'; --", "../..", "0" * 300])
_DECIMALS = st.decimals().map(str) | st.sampled_from(["1e999999999", "0." + "1" * 63, "-0", "0x1"])
_JSON = st.recursive(
    st.none().map(lambda _: nodes.Null)
    | st.booleans().map(nodes.Boolean)
    | st.integers().map(nodes.Int)
    | st.floats(allow_nan=False, allow_infinity=False).map(nodes.Float)
    | _TEXTS.map(nodes.String),
    lambda inner: st.lists(inner, max_size=3).map(nodes.List),
    max_leaves=5,
)
SCALARS = {
    "Timestamp": _INTEGERS.map(nodes.Int),
    "DateTime": (st.datetimes().map(str) | _TEXTS).map(nodes.String),
    "Decimal": (_DECIMALS | _TEXTS).map(nodes.String),
    "Secret": _TEXTS.map(nodes.String),
    "JSON": _JSON,
}
LIKELY = {
    "provider": ["sim", "replay", "binance"],
    "symbol": ["BTC/USDT", "AAPL", "btc/usdt"],
    "market": ["crypto", "stocks"],
    "timeframe": ["1m", "1h", "7d", "3M", "1y", "0m", "-1h", "99999999999999999999w"],
    "timezone": ["UTC", "America/New_York", "../etc/passwd"],
    "username": ["ada", "admin"],
    "email": ["ada@example.com", "a@b@c", "x\r\nBcc: y@example.com"],
    "scopes": ["READ"],
    "service": ["binance", "alpaca"],
    "action": ["login", "log\x00in"],
}
"""Values that lead further in than text at random does, by the name of what takes them."""


MADE_UP = [global_id(kind, text) for kind in NODES for text in ("a\x00b", "x\n\u202e", "0" * 300)]
"""Ids whose form is that of real ones, and which nobody was given."""


def operations() -> list[APIOperation]:
    """Return each query and mutation there is."""
    for name, strategy in SCALARS.items():
        schemathesis.graphql.scalar(name, strategy)
    found = schemathesis.graphql.from_dict(dict(introspection_from_schema(CORE)))
    return [operation.ok() for operation in found.get_all_operations()]


def takes_secrets(operation: APIOperation) -> bool:
    """Whether *operation* has a `Secret` in its input, which no document may hold."""
    pending = [argument.type for argument in operation.definition.raw.args.values()]
    while pending:
        of = get_named_type(pending.pop())
        if of.name == "Secret":
            return True
        if isinstance(of, GraphQLInputObjectType):
            pending.extend(field.type for field in of.fields.values())
    return False


def made_likely(document: DocumentNode, draw: st.DrawFn, ids: list[str]) -> DocumentNode:
    """Return *document* with some of its values replaced by likely ones, and *ids* that exist."""
    ids = [*ids, *MADE_UP]
    likely = {**LIKELY, "id": ids, "credentialId": ids, "userId": ids}

    class Replaced(Visitor):
        def leave_argument(self, node: ArgumentNode, *_: Any) -> Any:
            return self._replaced(node)

        def leave_object_field(self, node: ObjectFieldNode, *_: Any) -> Any:
            return self._replaced(node)

        def _replaced(self, node: Any) -> Any:
            known = likely.get(node.name.value)
            if known is None or not isinstance(node.value, StringValueNode):
                return None
            value = draw(st.none() | st.sampled_from(known))
            return None if value is None else type(node)(name=node.name, value=nodes.String(value))

    return visit(document, Replaced())


def with_variables(document: DocumentNode) -> tuple[str, dict[str, Any]]:
    """Return *document* with the values of its roots as variables, and these."""
    (operation,) = document.definitions
    assert isinstance(operation, OperationDefinitionNode)
    root = {"query": CORE.query_type, "mutation": CORE.mutation_type}[operation.operation.value]
    declared: list[VariableDefinitionNode] = []
    values: dict[str, Any] = {}
    fields = []
    for place, field in enumerate(operation.selection_set.selections):
        assert isinstance(field, FieldNode)
        arguments = []
        for argument in field.arguments or ():
            name = NameNode(value=f"{argument.name.value}{place}")
            of = parse_type(str(root.fields[field.name.value].args[argument.name.value].type))
            variable = VariableNode(name=name)
            declared.append(VariableDefinitionNode(variable=variable, type=of))
            values[name.value] = value_from_ast_untyped(argument.value)
            arguments.append(ArgumentNode(name=argument.name, value=variable))
        fields.append(replace(field, arguments=tuple(arguments)))
    selected = replace(operation.selection_set, selections=tuple(fields))
    lifted = replace(operation, variable_definitions=tuple(declared), selection_set=selected)
    return print_ast(replace(document, definitions=(lifted,))), values
