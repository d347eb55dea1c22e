"""GraphQL documents: parsed and validated once, and compiled to plans that are quick to execute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLCompositeType,
    GraphQLError,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    NamedTypeNode,
    OperationDefinitionNode,
    SelectionSetNode,
    get_named_type,
    is_abstract_type,
    is_composite_type,
    parse,
    validate,
)
from graphql.execution.values import get_argument_values, get_directive_values, get_variable_values
from graphql.language import OperationType, VariableNode, Visitor, visit
from graphql.type import GraphQLIncludeDirective, GraphQLSkipDirective
from msgspec import Struct

from mirror.sandbox.errors import Refused

Variables = Mapping[str, Any]
Resolver = Callable[[Any, Any, Mapping[str, Any]], Any]
Resolvers = Mapping[str, Mapping[str, Resolver]]
Kinds = Mapping[str, Callable[[Any], str]]
"""For each interface and union, how to tell the type of a value."""


class Step(Struct, frozen=True):
    """One field of a selection: the source of its value, and the plan for the fields below."""

    key: str
    resolve: Resolver
    arguments: Callable[[Any], Mapping[str, Any]]
    wanted: Callable[[Any], bool] | None
    plan: Callable[[Any], tuple[Step, ...]] | None
    """The plan for a value below, which depends on its type where the field's type is an interface or a union."""


class Operation(Struct, frozen=True):
    """An operation of a valid document."""

    name: str
    node: OperationDefinitionNode
    plan: tuple[Step, ...]


class InvalidDocument(Exception):
    """The document is not valid for the schema; `errors` has every reason."""

    def __init__(self, errors: list[GraphQLError]) -> None:
        super().__init__(errors[0].message)
        self.errors = errors


class Documents:
    """Plans by query text; the latest few hundred are cached."""

    def __init__(self, schema: GraphQLSchema, resolvers: Resolvers, kinds: Kinds, keep: int = 256) -> None:
        self.schema = schema
        self.resolvers = resolvers
        self.kinds = kinds
        self._keep = keep
        self._known: dict[str, dict[str, Operation]] = {}

    def operations(self, query: str) -> dict[str, Operation]:
        """Return the operations of a document by name. Raises InvalidDocument if it does not parse or validate."""
        found = self._known.get(query)
        if found is None:
            found = self._compile(query)
            while len(self._known) >= self._keep:
                del self._known[next(iter(self._known))]
            self._known[query] = found
        return found

    def operation(self, query: str, name: str | None) -> Operation:
        """Return the operation that a request selects. Raises InvalidDocument if the document has no such operation."""
        found = self.operations(query)
        if name:
            if name not in found:
                raise InvalidDocument([GraphQLError(f'Unknown operation named "{name}".')])
            return found[name]
        if len(found) != 1:
            raise InvalidDocument([GraphQLError("Must provide operation name if query contains multiple operations.")])
        return next(iter(found.values()))

    def variables(self, operation: Operation, given: Mapping[str, Any]) -> Any:
        """Return the coerced variables. Raises InvalidDocument if one is missing or has the wrong type."""
        values = get_variable_values(self.schema, operation.node.variable_definitions or (), dict(given))
        if isinstance(values, list):
            raise InvalidDocument(values)
        return values

    def _compile(self, query: str) -> dict[str, Operation]:
        document = _valid(self.schema, query)
        compiler = _Compiler(self.schema, self.resolvers, self.kinds, document)
        return {
            _name(node): Operation(_name(node), node, compiler.operation(node))
            for node in document.definitions
            if isinstance(node, OperationDefinitionNode)
        }


@lru_cache(maxsize=256)
def _valid(schema: GraphQLSchema, query: str) -> DocumentNode:
    """The document, if it is valid: servers of one process, of which tests start many, check it once."""
    try:
        document = parse(query, no_location=True)
    except GraphQLError as error:
        raise InvalidDocument([error]) from error
    errors = validate(schema, document)
    if errors:
        raise InvalidDocument(errors)
    return document


def _name(node: OperationDefinitionNode) -> str:
    if node.name:
        return node.name.value
    first = node.selection_set.selections[0]
    return first.name.value if isinstance(first, FieldNode) else "anonymous"


When = tuple[Any, ...]
"""The nodes whose @skip and @include decide whether a field is included: it, and the fragments around it."""

Asked = tuple[FieldNode, When]


class _Compiler:
    def __init__(self, schema: GraphQLSchema, resolvers: Resolvers, kinds: Kinds, document: DocumentNode) -> None:
        self.schema = schema
        self.resolvers = resolvers
        self.kinds = kinds
        self.fragments = {
            node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
        }

    def operation(self, node: OperationDefinitionNode) -> tuple[Step, ...]:
        mutation = node.operation == OperationType.MUTATION
        root = self.schema.mutation_type if mutation else self.schema.query_type
        assert root is not None
        return self._plan(root, [(node.selection_set, ())])

    def _plan(self, kind: GraphQLObjectType, selections: list[tuple[SelectionSetNode, When]]) -> tuple[Step, ...]:
        fields: dict[str, list[Asked]] = {}
        for selection, when in selections:
            self._collect(kind, selection, when, fields)
        return tuple(self._step(kind, key, nodes) for key, nodes in fields.items())

    def _collect(
        self, kind: GraphQLObjectType, selection: SelectionSetNode, above: When, fields: dict[str, list[Asked]]
    ) -> None:
        for node in selection.selections:
            when = (*above, node) if node.directives else above
            if isinstance(node, FieldNode):
                fields.setdefault(node.alias.value if node.alias else node.name.value, []).append((node, when))
            elif isinstance(node, FragmentSpreadNode):
                fragment = self.fragments[node.name.value]
                if self._fits(kind, fragment.type_condition):
                    self._collect(kind, fragment.selection_set, when, fields)
            elif isinstance(node, InlineFragmentNode) and self._fits(kind, node.type_condition):
                self._collect(kind, node.selection_set, when, fields)

    def _fits(self, kind: GraphQLObjectType, condition: NamedTypeNode | None) -> bool:
        """Return True if a fragment on this type applies to values of `kind`."""
        if condition is None or condition.name.value == kind.name:
            return True
        wanted = self.schema.type_map[condition.name.value]
        return is_abstract_type(wanted) and self.schema.is_sub_type(wanted, kind)

    def _step(self, kind: GraphQLObjectType, key: str, nodes: list[Asked]) -> Step:
        node = nodes[0][0]
        name = node.name.value
        wanted = None
        if all(when for _, when in nodes):
            cases = [when for _, when in nodes]
            wanted = lambda variables: any(  # noqa: E731
                all(_included(each, variables) for each in when) for when in cases
            )
        if name == "__typename":
            return Step(key, lambda _source, _context, _arguments: kind.name, _no_arguments, wanted, None)
        if name.startswith("__"):
            raise InvalidDocument([GraphQLError("introspection is disabled")])
        field = kind.fields[name]
        resolve = self.resolvers.get(kind.name, {}).get(name) or _from_mapping(name)
        below = get_named_type(field.type)
        subplan = self._subplan(below, nodes) if is_composite_type(below) else None
        arguments: Callable[[Any], Mapping[str, Any]]
        if not field.args:
            arguments = _no_arguments
        elif not _has_variables(node):
            constant = get_argument_values(field, node, None)
            arguments = lambda _variables: constant  # noqa: E731
        else:
            arguments = lambda variables: get_argument_values(field, node, variables)  # noqa: E731
        return Step(key, resolve, arguments, wanted, subplan)

    def _subplan(self, below: GraphQLCompositeType, nodes: list[Asked]) -> Callable[[Any], tuple[Step, ...]]:
        # Fields that occur in only one selection are returned if that selection is included.
        sets = [(item.selection_set, when if len(nodes) > 1 else ()) for item, when in nodes if item.selection_set]
        if isinstance(below, GraphQLObjectType):
            plan = self._plan(below, sets)
            return lambda _value: plan
        plans = {kind.name: self._plan(kind, sets) for kind in self.schema.get_possible_types(below)}
        name = self.kinds[below.name]
        return lambda value: plans[name(value)]


def _no_arguments(_variables: Any) -> Mapping[str, Any]:
    return {}


def _from_mapping(name: str) -> Resolver:
    return lambda source, _context, _arguments: source.get(name)


def _included(node: Any, variables: Any) -> bool:
    skip = get_directive_values(GraphQLSkipDirective, node, variables)
    include = get_directive_values(GraphQLIncludeDirective, node, variables)
    return not (skip and skip["if"]) and not (include and not include["if"])


class _Variables(Visitor):
    found = False

    def enter_variable(self, _node: VariableNode, *_rest: Any) -> None:
        self.found = True


def _has_variables(node: FieldNode) -> bool:
    visitor = _Variables()
    for argument in node.arguments or ():
        visit(argument, visitor)
    return visitor.found


def execute(operation: Operation, context: Any, variables: Any) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """Return the data of an operation, the errors of refused fields (null in the data), and the HTTP status."""
    errors: list[dict[str, Any]] = []
    status = 200

    def walk(plan: tuple[Step, ...], source: Any, path: tuple[str | int, ...]) -> dict[str, Any]:
        nonlocal status
        out: dict[str, Any] = {}
        for step in plan:
            if step.wanted is not None and not step.wanted(variables):
                continue
            try:
                value = step.resolve(source, context, step.arguments(variables))
            except Refused as refusal:
                errors.append({"message": refusal.message, "path": [*path, step.key]})
                status = max(status, refusal.status)
                value = None
            if step.plan is not None and value is not None:
                below = (*path, step.key)
                if type(value) is list:
                    value = [walk(step.plan(item), item, (*below, index)) for index, item in enumerate(value)]
                else:
                    value = walk(step.plan(value), value, below)
            out[step.key] = value
        return out

    return walk(operation.plan, None, ()), errors, status
