"""How much CPU it takes to refuse the worst documents and variables that fit into a request.

    python -m benchmarks.limits

Each is parsed, measured, validated and its errors written, as for a request; then it is weighed.
Figures are the least of several rounds, in milliseconds of CPU; the first line is the machine's own
pace. It ends with 1 if one takes more than `MOST`.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from time import process_time

import orjson
from graphql import GraphQLError, get_operation_ast, specified_rules
from graphql.execution.values import get_variable_values

from market.errors import BargraphError
from schema.build import BargraphSchema, build_schema
from web.documents import Documents
from web.limits.cost import Costs
from web.limits.gate import refusal_of
from web.limits.variables import check_variables

MOST = 50.0
ROUNDS = 5
MAX_COERCION_ERRORS = 50
"""As graphql-core has it where it executes."""
BODY = 1_000_000


def numbered(count: int, pattern: str, *, between: str = " ") -> str:
    """Return *pattern* so often, with each `#` replaced by its number and `@` by the next one."""
    return between.join(pattern.replace("#", str(n)).replace("@", str(n + 1)) for n in range(count))


def documents() -> Iterator[tuple[str, str]]:
    """Yield documents that try to cost much, each within the limit that it strains."""
    # More than a request may have.
    yield "1 MB of braces", "{" * BODY
    yield "1 MB of punctuation", "!" * BODY
    yield "1 MB of comments", "#a\n" * (BODY // 3)
    yield "1 MB of one block string", '{a(b:"""' + " " * (BODY - 20) + '""")}'
    yield "1 MB of aliases", "{" + numbered(90_000, "a#:name") + "}"
    yield "1 MB of operations", numbered(60_000, "query q#{a}")
    yield "100 kB of braces", "{" * 99_000
    yield "100 kB of one comment", "#" + "a" * 90_000 + "\n{" + numbered(500, "q#") + "}"
    yield "100 kB of lines", "\n" * 99_000 + "{a}"
    yield "100 kB of one block string", '{candles(series:"""' + " " * 98_000 + '"""){cursor}}'
    yield "100 kB of escapes", '{candles(series:"' + "\\u0041" * 16_000 + '"){cursor}}'
    yield "100 kB of one name", "{" + "a" * 99_000 + "}"
    yield "2,000 lines before mistakes", "\n" * 1990 + "{" + numbered(1900, "candlez#") + "}"
    yield "the same in the other newline", "\r" * 1990 + "{" + numbered(1900, "candlez#") + "}"
    # Mistakes that are searched for what was meant.
    yield "unknown fields", "{" + numbered(1990, "candlez#") + "}"
    yield "unknown long fields", "{" + numbered(1990, "x" * 45 + "#") + "}"
    yield "unknown arguments", "{candles(" + numbered(600, "s" * 100 + "#:1") + "){cursor}}"
    yield "unknown input fields", "{candles(series:{" + numbered(249, "p#:1") + "}){cursor}}"
    yield (
        "unknown long input fields",
        "{candles(series:{" + numbered(249, "p" * 300 + "#:1") + "}){cursor}}",
    )
    yield (
        "unknown fields of a long value",
        '{candles(series:{a:"' + "x" * 95_000 + '" ' + numbered(60, "b#:1") + "}){cursor}}",
    )
    yield "unknown types", "{" + numbered(330, "...on Candl#{a}") + "}"
    yield "unknown enum", '{symbols(provider:"a" type:' + "A" * 95_000 + "){nodes{id}}}"
    yield "a literal too large", "{candles(series:{" + numbered(650, "p#:1") + "}){cursor}}"
    yield (
        "it in the second fragment of a name",
        "{...f}fragment f on Query{markets{id}} fragment f on Query{candles(series:{"
        + numbered(600, "p#:1")
        + "}){cursor}}",
    )
    # What is compared with each other.
    yield "one field 2,000 times", "{markets{" + "name " * 1985 + "}}"
    yield "one object 490 times", "{" + "markets{id} " * 490 + "}"
    yield "one name for all", "{" + numbered(660, "a:x#") + "}"
    yield (
        "long arguments compared",
        "{" + numbered(140, 'candles(series:{provider:"' + "x" * 300 + '#"}){cursor}') + "}",
    )
    yield "fields deep in equal ones", "{" + "markets{providers{markets{id}}} " * 180 + "}"
    yield (
        "two fragments of equal fields",
        "{...a ...b}" + "".join(f"fragment {n} on Query{{{'markets{id} ' * 200}}}" for n in "ab"),
    )
    yield (
        "120 fragments side by side",
        "{" + numbered(120, "...f#") + "}" + numbered(120, "fragment f# on Query{a#:markets{id}}"),
    )
    # Fragments that spread fragments.
    chain = numbered(275, "fragment f# on Query{...f@}", between="")
    yield "a chain of fragments", "{...f0}" + chain
    yield (
        "a bomb of fragments",
        "{...f0}"
        + numbered(90, "fragment f# on Query{markets{id}...f@ ...f@}", between="")
        + "fragment f90 on Query{markets{id}}",
    )
    yield (
        "a bomb of fragments and fields",
        "{node(id:1){...f0}}"
        + numbered(12, "fragment f# on Market{providers{markets{...f@}}...f@}", between="")
        + "fragment f12 on Market{id}",
    )
    yield (
        "fragments in a circle",
        numbered(240, "fragment f# on Query{...f@}", between="")
        + "fragment f240 on Query{...f0}{...f0}",
    )
    every = numbered(30, "...f#")
    yield (
        "every fragment in every other",
        "{...f0}" + numbered(30, "fragment f# on Query{" + every + "}"),
    )
    yield (
        "90 operations over a chain",
        numbered(90, "query q#{...f0}") + numbered(170, "fragment f# on Query{...f@}", between=""),
    )
    yield (
        "90 operations over variables",
        numbered(90, "query q#{...f}")
        + "fragment f on Query{"
        + numbered(80, "s#:symbols(provider:$p#){pageInfo{endCursor}}")
        + "}",
    )
    # Many of one thing.
    yield "aliases", "{markets{" + numbered(660, "a#:name") + "}}"
    yield "aliases with mistakes", "{" + numbered(490, "a#:markets") + "}"
    yield "depth", "{markets" + "{providers{markets" * 60 + "{name}" + "}}" * 60 + "}"
    yield "depth without fields", "{" + "...{" * 190 + "markets{id}" + "}" * 190 + "}"
    yield "directives", "{markets{name " + "@skip(if:true)" * 240 + "}}"
    yield "unknown directives", "{markets{name " + "@skp " * 900 + "}}"
    yield "operations", numbered(390, "query q#{a}")
    yield "variables", "query(" + numbered(490, "$v#:Int") + "){markets{id}}"
    yield "variables of unknown types", "query(" + numbered(450, "$v#:Candl#") + "){markets{id}}"
    yield "definitions of types", numbered(280, "type A#{a:Int}")
    yield (
        "half of each",
        "{" + numbered(190, "...on Query{a#:markets{id}}") + "}",
    )


SERIES = "query($of:SeriesInput!){candles(series:$of){cursor}}"
SYMBOLS = 'query($type:InstrumentType){symbols(provider:"sim",type:$type){nodes{id}}}'
TICKER = 'subscription($of:[String!]!){ticker(provider:"sim",symbols:$of){last}}'


def variables() -> Iterator[tuple[str, str, dict[str, object]]]:
    """Yield variables that try to cost much, with a document that takes them."""
    yield "a long enum", SYMBOLS, {"type": "A" * 249_000}
    yield "a long string", SERIES, {"of": "A" * 249_000}
    yield "1 MB of text", SERIES, {"of": "A" * BODY}
    yield "10,000 unknown fields", SERIES, {"of": {f"provide{n}": n for n in range(9_900)}}
    yield "500 unknown fields", SERIES, {"of": {f"provide{n}": n for n in range(500)}}
    yield "long unknown fields", SERIES, {"of": {"p" * 480 + str(n): 1 for n in range(500)}}
    yield "unknown fields of a long string", SERIES, {"of": {str(n): "x" * 600 for n in range(400)}}
    yield "900 wrong items", TICKER, {"of": list(range(900))}
    yield "1 MB of items", TICKER, {"of": [0] * (BODY // 2)}
    yield "1 MB of objects", TICKER, {"of": [{}] * (BODY // 3)}


class Desk:
    """Refuses documents as a server does; nothing is remembered from one to the next."""

    def __init__(self, schema: BargraphSchema) -> None:
        self._schema = schema.core
        self._costs = Costs(schema.core, available=100_000, max_bars=10_000)

    def refuse(self, text: str, given: dict[str, object] | None = None) -> str:
        """Return how the request fares, in a few words."""
        found = Documents()
        errors: list[GraphQLError] = []
        document = None
        try:
            check_variables(given)
            document = found.parse(text)
            errors = found.validate(self._schema, text, tuple(specified_rules))
            operation = get_operation_ast(document)
            if not errors and operation is not None:
                cost, _ = self._costs.of(document, operation, given)
                if (refusal := refusal_of(cost)) is not None:
                    raise refusal
                values = get_variable_values(
                    self._schema,
                    operation.variable_definitions or (),
                    given or {},
                    max_errors=MAX_COERCION_ERRORS,
                )
                errors = values if isinstance(values, list) else []
        except GraphQLError as error:
            errors = [error]
        except BargraphError as refusal:
            return str(refusal)
        written = orjson.dumps([error.formatted for error in errors])
        if not errors:
            return "accepted"
        return f"{len(errors)} errors, {len(written)} B: {errors[0].message}"


def least(run: Callable[[], str]) -> tuple[float, str]:
    """Return the least milliseconds of CPU that *run* takes, and what it says."""
    times = []
    said = ""
    for _ in range(ROUNDS):
        gc.collect()
        started = process_time()
        said = run()
        times.append((process_time() - started) * 1000)
    return min(times), said


def main() -> int:
    desk = Desk(build_schema())
    desk.refuse("{markets{id}}")
    pace, _ = least(lambda: str(sum(range(1_000_000))))
    print(f"{pace:7.1f} ms  sum of a million numbers")
    worst = 0.0
    tried = [(name, text, None) for name, text in documents()]
    for name, text, given in [*tried, *variables()]:
        took, said = least(lambda text=text, given=given: desk.refuse(text, given))
        worst = max(worst, took)
        print(f"{took:7.1f} ms  {name:36} {said[:90]}")
    print(f"{worst:7.1f} ms  the worst; at most {MOST:.0f}")
    return int(worst > MOST)


if __name__ == "__main__":
    sys.exit(main())
