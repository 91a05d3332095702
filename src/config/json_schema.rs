//! The JSON Schema of the file, for editors. Made from the decoder's own tables, so the two cannot drift.
//!
//! * In: the tables of [`crate::config::keys`].
//! * Out: one JSON document (draft 2020-12), committed as `deploy/pg2planhat.schema.json`.
//! * Never: a key, a word or a default that the decoder does not have. It is looser than the decoder in most rules, and
//!   stricter in one: text that looks like a number or a boolean is to be quoted.

use serde_json::{Map, Value, json};

use crate::config::keys::{
    ACTIVITY, CONDITION, FLUSH, FORM, KeySpec, METRIC, PlanhatField, ROOT, SECRET, SECTION, START, Shape, Takes,
};

/// The JSON Schema of the configuration.
pub(crate) fn json_schema() -> Value {
    let mut root = object(ROOT);
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("pg2planhat.yaml");
    root["$defs"] = json!({
        "secret": {
            "description": "A string, {env: NAME} or {file: PATH}.",
            "anyOf": [{"type": ["string", "number"]}, one_key(SECRET)],
        },
        "duration": {
            "description": "A whole number and its unit: 250ms, 5s, 10m, 1h, 30d.",
            "type": "string",
            "pattern": "^[0-9]+ *(ms|s|m|h|d)$",
        },
        "size": {
            "description": "Bytes, or a whole number and its unit: 64KiB, 8MiB, 64kB, 8MB.",
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": "^[0-9]+ *(B|kB|KB|MB|GB|KiB|MiB|GiB)?$"},
            ],
        },
        "constant": {"type": ["string", "number", "boolean"]},
        "condition": {
            "description": "What a column must be: null, a value, a list of which one must hold, or a mapping of which all must.",
            "anyOf": [
                {"type": ["null", "string", "number", "boolean"]},
                {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/condition"}},
                condition(),
            ],
        },
        "field": {
            "description": "A column, {value: constant} or {column: name, default: constant, as: text}.",
            "anyOf": [identifier(), form()],
        },
        "section": section(),
        "user_activity": fields(ACTIVITY, json!([{"required": ["email"]}, {"required": ["externalId"]}])),
        "custom_metric": fields(METRIC, json!([{"required": ["dimensionId", "value", "externalId"]}])),
    });
    root
}

fn object(keys: &[KeySpec]) -> Value {
    let properties: Map<String, Value> = keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<&str> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let mut schema = json!({"type": "object", "additionalProperties": false, "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// An object with exactly one of the keys.
fn one_key(keys: &[KeySpec]) -> Value {
    let mut schema = object(keys);
    schema["minProperties"] = json!(1);
    schema["maxProperties"] = json!(1);
    schema
}

fn property(key: &KeySpec) -> Value {
    let mut schema = shape(key.shape);
    // A null is an absent key; see the cursor.
    if !key.required {
        schema = json!({"anyOf": [schema, {"type": "null"}]});
    }
    schema["description"] = json!(key.about);
    if let Some(default) = key.default {
        let bare = matches!(key.shape, Shape::Bool | Shape::Count | Shape::InFlight | Shape::Port);
        let parsed = if bare { serde_json::from_str(default).ok() } else { None };
        schema["default"] = parsed.unwrap_or_else(|| json!(default));
    }
    schema
}

fn identifier() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 63})
}

fn shape(shape: Shape) -> Value {
    match shape {
        Shape::Text | Shape::Path | Shape::TableName => json!({"type": "string", "minLength": 1}),
        Shape::Identifier => identifier(),
        Shape::Identifiers => {
            json!({"anyOf": [identifier(), {"type": "array", "minItems": 1, "uniqueItems": true, "items": identifier()}]})
        }
        Shape::SlotName => json!({"type": "string", "pattern": "^[a-z0-9_]{1,63}$"}),
        Shape::SectionName => json!({"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,63}$"}),
        Shape::Url => json!({"type": "string", "pattern": "^https?://[^?#@ ]+$"}),
        Shape::Listen => json!({"type": "string", "pattern": ":[0-9]{1,5}$"}),
        Shape::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Shape::Hosts => json!({"type": "array", "items": {"type": "string", "pattern": "^[A-Za-z0-9._-]+$"}}),
        Shape::Secret => json!({"$ref": "#/$defs/secret"}),
        Shape::Bool => json!({"type": "boolean"}),
        Shape::Port => json!({"type": "integer", "minimum": 1, "maximum": 65535}),
        Shape::Count => json!({"type": "integer", "minimum": 1, "maximum": u32::MAX}),
        Shape::InFlight => json!({"type": "integer", "minimum": 1, "maximum": 8}),
        Shape::Duration => json!({"$ref": "#/$defs/duration"}),
        Shape::Size => json!({"$ref": "#/$defs/size"}),
        Shape::Zone => json!({"type": "string", "minLength": 1}),
        Shape::TimeOfDay => json!({"type": "string", "pattern": "^[0-9]{2}:[0-9]{2}(:[0-9]{2})?$"}),
        Shape::Constant => json!({"$ref": "#/$defs/constant"}),
        // `sync: off` is false for editors that read YAML 1.1.
        Shape::OneOf(words) if words.contains(&"off") => {
            let words: Vec<Value> = words.iter().map(|word| json!(word)).chain([json!(false)]).collect();
            json!({"enum": words})
        }
        Shape::OneOf(words) => json!({"enum": words}),
        Shape::Object(keys) => object(keys),
        Shape::Sections => json!({"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/section"}}),
        Shape::List(keys) => json!({"type": "array", "items": object(keys)}),
        Shape::Start => json!({"anyOf": [{"enum": ["backfill", "now"]}, object(START)]}),
        Shape::Flush => json!({"anyOf": [{"$ref": "#/$defs/duration"}, object(FLUSH)]}),
        Shape::Every => json!({"anyOf": [{"const": "off"}, {"$ref": "#/$defs/duration"}, object(FLUSH)]}),
        Shape::Fields => json!({"type": "object"}),
        Shape::Where => json!({"type": "object", "additionalProperties": {"$ref": "#/$defs/condition"}}),
        Shape::Condition => json!({"$ref": "#/$defs/condition"}),
    }
}

fn form() -> Value {
    let mut schema = object(FORM);
    schema["oneOf"] = json!([
        {"required": ["value"], "properties": {"column": false, "default": false, "as": false}},
        {"required": ["column"], "properties": {"value": false}},
    ]);
    schema
}

/// Bounds are never null, while `not` may be: there a null is a value.
fn condition() -> Value {
    let properties: Map<String, Value> = CONDITION.iter().map(|key| (key.name.to_owned(), shape(key.shape))).collect();
    json!({"type": "object", "additionalProperties": false, "minProperties": 1, "properties": properties})
}

fn section() -> Value {
    let mut schema = object(SECTION);
    let of = |kind: &str| {
        json!({
            "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
            "then": {"properties": {"fields": {"$ref": format!("#/$defs/{kind}")}}},
        })
    };
    schema["allOf"] = json!([of("user_activity"), of("custom_metric")]);
    schema
}

fn fields(known: &[PlanhatField], mandatory: Value) -> Value {
    let properties: Map<String, Value> = known
        .iter()
        .map(|field| {
            let value = match field.takes {
                Takes::Object => json!({
                    "anyOf": [identifier(), {"type": "object", "minProperties": 1, "additionalProperties": {"$ref": "#/$defs/field"}}],
                }),
                Takes::Text | Takes::Dimension | Takes::Number | Takes::Date => json!({"$ref": "#/$defs/field"}),
            };
            let mut value = value;
            value["description"] = json!(field.about);
            (field.name.to_owned(), value)
        })
        .collect();
    json!({"type": "object", "additionalProperties": false, "properties": properties, "anyOf": mandatory})
}
