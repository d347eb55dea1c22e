"""GraphQL documents: validated against what the mirror can answer, cached as trees of fields, and executed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLField,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    NamedTypeNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    build_schema,
    execute_sync,
    get_named_type,
    is_abstract_type,
    parse,
    validate,
)
from graphql.execution.values import get_argument_values, get_directive_values, get_variable_values
from graphql.type import GraphQLIncludeDirective, GraphQLSkipDirective
from msgspec import Struct

from mirror.errors import MirrorError

KEEP = 256
"""How many parsed documents are cached; a script sends the same few again and again."""

MOST_TOKENS = 3_000
MOST_FIELDS = 5_000
"""Limits of a document as written, and with its fragments expanded; the official client's longest have a tenth of it.

Validation time grows with the square of the tokens, and the memory of an answer with the fields.
"""

MOST_OBJECTS = 500_000
MOST_BYTES = 256 << 20
"""Limits of one answer: objects, and bytes of documents and histories. A page of a thousand runs has 5,000 objects."""


class Malformed(MirrorError):
    """The request is not a valid GraphQL request for any server."""


class NotServed(MirrorError):
    """The mirror cannot answer this, but the real server may. The message says what is missing."""


class ServerKnowsBetter(NotServed):
    """The mirror can answer this, but while the server can be reached, its answer is better.

    `seconds` is how long it is waited for; None: as long as for any request.
    """

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds


class NotPulled(NotServed):
    """The mirror can answer this once it has pulled the edits of a project, or of all projects of an entity."""

    def __init__(self, path: Sequence[str]) -> None:
        super().__init__(f"edits of {'/'.join(path)} are not pulled yet")
        self.path = path


class Write(NotServed):
    """A mutation, which only the real server may execute."""


class TooMuch(MirrorError):
    """The answer would take too much memory."""


Conditional = FieldNode | InlineFragmentNode | FragmentSpreadNode

Conditions = tuple[Conditional, ...]
"""The nodes whose @skip and @include must all include a field: the field itself and the fragments around it."""


class Field(Struct, frozen=True):
    """One requested field and the fields below it. It is included if all nodes of one of `conditions` are."""

    key: str
    kind: str
    name: str
    node: FieldNode
    definition: GraphQLField
    below: tuple[Field, ...] | None
    conditions: tuple[Conditions, ...] = ()
    kinds: Mapping[str, tuple[Field, ...]] | None = None
    """The fields below by the type of a value, if the field's type is an interface or a union."""

    def names(self, *path: str) -> frozenset[str]:
        """Return the names of the requested fields at the end of this path below the field."""
        here = [self]
        for name in path:
            here = [field for one in here for field in one.below or () if field.name == name]
        return frozenset(field.name for one in here for field in one.below or ())

    def of(self, value: Any) -> tuple[Field, ...]:
        """Return the fields below for a value; one of an interface or a union names its type as `__typename`."""
        return (self.below or ()) if self.kinds is None else self.kinds[value["__typename"]]

    def arguments(self, variables: Any) -> dict[str, Any]:
        """Return the arguments of the field; those that were not given are left out. Raises Malformed."""
        try:
            return get_argument_values(self.definition, self.node, variables)
        except GraphQLError as error:
            raise Malformed(error.message) from error

    def wanted(self, variables: Any) -> bool:
        """Return True if @skip and @include let the field be returned."""
        return not self.conditions or any(
            all(_included(node, variables) for node in together) for together in self.conditions
        )


class Operation(Struct, frozen=True, dict=True):
    """A query that the mirror can answer."""

    node: OperationDefinitionNode
    fields: tuple[Field, ...]
    schema_question: DocumentNode | None = None
    """The whole document if it only asks about the schema, as some versions of the SDK do."""
    named: str = ""
    """The operation name that the request has beside the document; empty if it has none."""

    @cached_property
    def roots(self) -> frozenset[str]:
        """The names of the top-level fields."""
        return frozenset(field.name for field in self.fields)

    def variables(self, given: Mapping[str, Any]) -> Any:
        """Return the variables with their defaults, in graphql-core's own form.

        Raises Malformed when one is missing or of the wrong type.
        """
        found: Any = get_variable_values(_schema(), self.node.variable_definitions or (), dict(given))
        if isinstance(found, list):
            raise Malformed(found[0].message)
        return found


Resolver = Callable[[Any, Any, Field, Mapping[str, Any]], Any]
"""Called with source, context, field and its arguments; returns a value, or the source of the fields below."""


def operation(query: str, name: str | None) -> Operation:
    """Return the operation that a request selects.

    Raises Malformed for an invalid query, Write for a mutation, NotServed for what the mirror cannot answer.
    """
    found = _operations(query)
    if isinstance(found, MirrorError):
        raise found
    if name and name in found:
        return found[name]
    if name or len(found) != 1:
        raise Malformed(f"the document has no operation {name}" if name else "operationName is missing")
    return next(iter(found.values()))


def execute(
    operation: Operation, context: Any, variables: Any, resolvers: Mapping[str, Mapping[str, Resolver]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the data, and the errors of fields without data.

    A field without a resolver is read from its source. If the source lacks it, the mirror does not hold it, and
    NotServed is raised; it is not caught, because half an answer helps nobody.
    """
    errors: list[dict[str, Any]] = []
    if operation.schema_question is not None:
        answer = execute_sync(_schema(), operation.schema_question, operation_name=_name(operation.node) or None)
        return answer.data or {}, [{"message": error.message} for error in answer.errors or ()]

    planned: dict[int, list[tuple[Field, Resolver | None, Mapping[str, Any]]]] = {}
    objects = size = 0

    def plan(fields: tuple[Field, ...]) -> list[tuple[Field, Resolver | None, Mapping[str, Any]]]:
        """Return the included fields with resolvers and arguments, the same for all objects of a list."""
        if id(fields) not in planned:
            planned[id(fields)] = [
                (
                    field,
                    _kind_of if field.name == "__typename" else resolvers.get(field.kind, {}).get(field.name),
                    field.arguments(variables) if field.definition.args else {},
                )
                for field in fields
                if field.wanted(variables)
            ]
        return planned[id(fields)]

    def walk(fields: tuple[Field, ...], source: Any, path: tuple[str | int, ...]) -> dict[str, Any]:
        nonlocal objects, size
        objects += 1
        if objects > MOST_OBJECTS or size > MOST_BYTES:
            raise TooMuch("this document asks for too much at once; ask for fewer runs, or for smaller pages")
        found: dict[str, Any] = {}
        for field, resolve, arguments in plan(fields):
            try:
                if resolve is None and field.below is None:
                    found[field.key] = source[field.name]
                    continue
                value = resolve(source, context, field, arguments) if resolve else source[field.name]
            except KeyError:
                if resolve is not None:
                    raise
                raise NotServed(f"{field.kind}.{field.name} is not mirrored here") from None
            except (NotServed, TooMuch):
                raise
            except MirrorError as error:
                errors.append({"message": str(error), "path": [*path, field.key]})
                value = None
            if field.below is not None and value is not None:
                here = (*path, field.key)
                if isinstance(value, list):
                    value = [walk(field.of(item), item, (*here, place)) for place, item in enumerate(value)]
                else:
                    value = walk(field.of(value), value, here)
            elif isinstance(value, str):
                size += len(value)
            elif isinstance(value, list):
                size += sum(len(item) for item in value if isinstance(item, str))
            found[field.key] = value
        return found

    return walk(operation.fields, None, ()), errors


def _included(node: Conditional, variables: Any) -> bool:
    try:
        skip = get_directive_values(GraphQLSkipDirective, node, variables)
        include = get_directive_values(GraphQLIncludeDirective, node, variables)
    except GraphQLError as error:
        raise Malformed(error.message) from error
    return not (skip and skip["if"]) and not (include and not include["if"])


def _kind_of(_source: Any, _context: Any, field: Field, _arguments: Mapping[str, Any]) -> str:
    return field.kind


@lru_cache(maxsize=1)
def _schema() -> GraphQLSchema:
    return build_schema((Path(__file__).parent / "schema.graphql").read_text(encoding="utf-8"))


@lru_cache(maxsize=KEEP)
def _operations(query: str) -> dict[str, Operation] | MirrorError:
    """Return the operations by name, or the error; errors are cached, too."""
    try:
        document = parse(query, no_location=True, max_tokens=MOST_TOKENS)
    except GraphQLError as error:
        if not error.message.endswith("Parsing aborted."):
            return Malformed(error.message)
        # The document was not parsed to its end; every mutation contains the word.
        return (
            Write("a change") if "mutation" in query else NotServed(f"a document of more than {MOST_TOKENS:,} tokens")
        )
    except RecursionError:
        return Malformed("the document is nested too deeply")
    nodes = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    if any(node.operation != OperationType.QUERY for node in nodes):
        return Write("a change")
    try:
        errors = validate(_schema(), document, max_errors=1)
    except RecursionError:
        return Malformed("the document is nested too deeply")
    if errors:
        return NotServed(errors[0].message.replace("'", '"'))
    if sum(_expanded(document).values()) > MOST_FIELDS:
        return NotServed(f"a document with more than {MOST_FIELDS:,} fields")
    try:
        return {_name(node): _operation(document, node) for node in nodes}
    except NotServed as error:
        return error


def _expanded(document: DocumentNode) -> dict[str, int]:
    """Return how many fields each operation has with its fragments expanded."""
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    known: dict[str, int] = {}

    def of_fragment(name: str) -> int:
        if name not in known:
            known[name] = count(fragments[name].selection_set)
        return known[name]

    def count(selected: SelectionSetNode | None) -> int:
        return sum(
            of_fragment(node.name.value)
            if isinstance(node, FragmentSpreadNode)
            else 1 + count(node.selection_set)
            if isinstance(node, FieldNode | InlineFragmentNode)
            else 0
            for node in (selected.selections if selected else ())
        )

    return {
        _name(node): count(node.selection_set)
        for node in document.definitions
        if isinstance(node, OperationDefinitionNode)
    }


def _operation(document: DocumentNode, node: OperationDefinitionNode) -> Operation:
    selected = node.selection_set.selections
    if selected and all(isinstance(field, FieldNode) and field.name.value.startswith("__") for field in selected):
        return Operation(node, (), document)
    return Operation(node, _fields(document, _query_type(), [(node.selection_set, ())]))


def _name(node: OperationDefinitionNode) -> str:
    return node.name.value if node.name else ""


def _query_type() -> GraphQLObjectType:
    found = _schema().query_type
    assert found is not None
    return found


def _fields(
    document: DocumentNode, kind: GraphQLObjectType, sets: list[tuple[SelectionSetNode, Conditions]]
) -> tuple[Field, ...]:
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    nodes: dict[str, list[tuple[FieldNode, Conditions]]] = {}
    for selected, above in sets:
        for node, conditions in _selected(kind, selected, fragments, above):
            nodes.setdefault(node.alias.value if node.alias else node.name.value, []).append((node, conditions))
    return tuple(_field(document, kind, key, alike) for key, alike in nodes.items())


def _selected(
    kind: GraphQLObjectType,
    selected: SelectionSetNode,
    fragments: Mapping[str, FragmentDefinitionNode],
    above: Conditions,
) -> Iterator[tuple[FieldNode, Conditions]]:
    for node in selected.selections:
        assert isinstance(node, Conditional)
        conditions = (*above, node) if node.directives else above
        if isinstance(node, FieldNode):
            yield node, conditions
        elif isinstance(node, FragmentSpreadNode):
            fragment = fragments[node.name.value]
            if _fits(kind, fragment.type_condition):
                yield from _selected(kind, fragment.selection_set, fragments, conditions)
        elif _fits(kind, node.type_condition):
            yield from _selected(kind, node.selection_set, fragments, conditions)


def _fits(kind: GraphQLObjectType, condition: NamedTypeNode | None) -> bool:
    """Return True if a fragment on this type applies to values of `kind`."""
    if condition is None or condition.name.value == kind.name:
        return True
    wanted = _schema().type_map[condition.name.value]
    return is_abstract_type(wanted) and _schema().is_sub_type(wanted, kind)


def _field(
    document: DocumentNode, kind: GraphQLObjectType, key: str, nodes: list[tuple[FieldNode, Conditions]]
) -> Field:
    node, name = nodes[0][0], nodes[0][0].name.value
    conditions = tuple(these for _, these in nodes) if all(these for _, these in nodes) else ()
    if name == "__typename":
        return Field(key, kind.name, name, node, GraphQLField(_query_type()), None, conditions)
    if name.startswith("__"):
        raise NotServed("a question about the schema itself")
    definition = kind.fields[name]
    type_ = get_named_type(definition.type)
    # Requested twice, once under a condition: fields that only one of them selects depend on its condition.
    sets = [(item.selection_set, these if len(nodes) > 1 else ()) for item, these in nodes if item.selection_set]
    below = _fields(document, type_, sets) if isinstance(type_, GraphQLObjectType) else None
    if not is_abstract_type(type_):
        return Field(key, kind.name, name, node, definition, below, conditions)
    kinds = {each.name: _fields(document, each, sets) for each in _schema().get_possible_types(type_)}
    return Field(key, kind.name, name, node, definition, (), conditions, kinds)
