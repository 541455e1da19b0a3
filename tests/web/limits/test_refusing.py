"""Documents that are costly to refuse are refused before they cost much."""

import pytest
from graphql import GraphQLError, parse, specified_rules

from benchmarks.limits import documents, variables
from market.errors import BargraphError
from schema.build import build_schema
from web.documents import MAX_ERRORS, MAX_MESSAGE, Documents
from web.limits.merging import MAX_STEPS, FieldsCanBeMerged
from web.limits.variables import check_variables

SCHEMA = build_schema().core
RULES = tuple(specified_rules)


def wrongs(text: str, found: Documents) -> list[GraphQLError]:
    try:
        found.parse(text)
    except GraphQLError as error:
        return [error]
    return found.validate(SCHEMA, text, RULES)


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in documents()])
def test_no_hostile_document_gets_a_long_answer(text: str) -> None:
    errors = wrongs(text, Documents())

    assert len(errors) <= MAX_ERRORS
    assert all(len(error.message) <= MAX_MESSAGE for error in errors)


def test_fields_of_one_name_are_compared_within_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    left = []
    before = FieldsCanBeMerged.__init__

    def watched(self, context):
        before(self, context)
        left.append(self.rule_context)

    monkeypatch.setattr(FieldsCanBeMerged, "__init__", watched)

    (error,) = wrongs("{" + "markets{id} " * 490 + "}", Documents())

    assert error.message == "Validation aborted."
    assert -10 < left[0].remaining_complexity_budget < 0  # it stopped as soon as it was spent
    assert wrongs("{" + "markets{id} " * 40 + "}", Documents()) == []
    assert MAX_STEPS - left[1].remaining_complexity_budget < MAX_STEPS


def test_a_document_of_many_lines_is_refused_before_it_is_read() -> None:
    found = Documents(max_lines=3)

    found.parse("{\n a\n}")
    for newline in ("\n", "\r"):
        with pytest.raises(GraphQLError, match="3 lines") as refused:
            found.parse(newline * 3 + "{ a }")
        assert refused.value.extensions == {"code": "GRAPHQL_PARSE_FAILED"}


def test_a_shape_beyond_its_limit_is_not_validated() -> None:
    found = Documents()

    (error,) = wrongs("{" + " ".join(f"a{n}: nowhere" for n in range(501)) + "}", found)

    assert error.extensions == {
        "code": "GRAPHQL_VALIDATION_FAILED",
        "limit": {"name": "aliases", "most": 500},
    }


def test_suggestions_and_the_schema_can_be_kept_from_clients() -> None:
    open_handed, closed = Documents(), Documents(introspection=False, suggestions=False)
    typo, schema = "{ markats { id } }", "{ __schema { types { name } } }"

    assert "markets" in wrongs(typo, open_handed)[0].message
    assert wrongs(schema, open_handed) == []

    (unknown,) = wrongs(typo, closed)
    assert unknown.message == "Cannot query field 'markats' on type 'Query'."
    assert all("introspection" in error.message for error in wrongs(schema, closed))
    assert wrongs("{ __typename }", closed) == []


@pytest.mark.parametrize(
    ("text", "given"), [pytest.param(text, given, id=name) for name, text, given in variables()]
)
def test_hostile_variables_are_at_most_small_and_wrong(text: str, given: dict) -> None:
    parse(text)
    try:
        check_variables(given)
    except BargraphError as refusal:
        assert len(str(refusal)) < 200
