"""JSON Schema of our Structs, with nothing left to look up: every `$ref` is put in its place.

Both OpenAPI documents and the reading of Coze's bodies stand on it, so what is documented and what
is read are one thing. Each schema has one plain `type`, as Coze's importer wants it, but for lists
with unknown entries, which the open API has none of.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

Schema = dict[str, Any]

_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number"}


@cache
def schema_of(kind: Any) -> Schema:
    """The schema of a type, inlined. Shared: nobody changes it."""
    (schema,), components = msgspec.json.schema_components([kind], ref_template="{name}")
    return _inlined(schema, components)


def _inlined(schema: Schema, components: dict[str, Schema]) -> Schema:
    if "$ref" in schema:
        around = {name: value for name, value in schema.items() if name not in ("$ref", "default")}
        return {**_inlined(components[schema["$ref"]], components), **around}
    if "anyOf" in schema:
        return _inlined(_without_null(schema), components)
    members: Schema = {}
    for name, value in schema.items():
        match name:
            case "properties":
                members[name] = {key: _inlined(inner, components) for key, inner in value.items()}
            case "items" if isinstance(value, dict) and {"type": "null"} in value.get("anyOf", ()):
                members[name] = _or_null(_inlined(value, components))
            case "items" | "additionalProperties" if isinstance(value, dict):
                members[name] = _inlined(value, components)
            case "title" | "default" | "additionalProperties":
                continue  # names of ours, and what absence means: the descriptions tell that
            case "required" if not value:
                continue  # OpenAPI 3.0 knows no empty list here
            case _:
                members[name] = value
    if "enum" in members and "type" not in members:
        members["type"] = _TYPES[type(members["enum"][0])]
    return members


def _or_null(schema: Schema) -> Schema:
    """An entry of a list cannot be left out: one that is not known is null."""
    return {**schema, "type": [schema["type"], "null"]}


def _without_null(schema: Schema) -> Schema:
    """`text or null` as text: what is not set is left out, never null.

    Raises:
        ValueError: a true union, which no client could be told in one type.
    """
    kinds = [kind for kind in schema["anyOf"] if kind != {"type": "null"}]
    if len(kinds) != 1:
        raise ValueError(f"a member has several types: {schema['anyOf']}")
    around = {name: value for name, value in schema.items() if name != "anyOf"}
    return {**kinds[0], **around}
