//! The schemas of metadata definitions: what bodies are checked against and clients are shown.

use base::{Error, Json, Result};
use schema::{Dialect, Schema, Verdict};
use serde_json::{Value, json};
use std::sync::LazyLock;

fn read_only_time(description: &str) -> Json {
    json!({"type": "string", "readOnly": true, "description": description, "format": "date-time"})
}

fn types() -> Json {
    json!({"type": "string", "enum": ["array", "boolean", "integer", "number", "object", "string", null]})
}

/// What may be said of a property.
fn property_keys() -> Json {
    let texts = || json!({"type": "array", "items": {"type": "string"}});
    let positive = || json!({"$ref": "#/definitions/positiveInteger"});
    let positive_or_0 = || json!({"$ref": "#/definitions/positiveIntegerDefault0"});
    json!({
        "name": {"type": "string", "maxLength": 80},
        "title": {"type": "string"},
        "description": {"type": "string"},
        "operators": texts(),
        "type": types(),
        "required": {"$ref": "#/definitions/stringArray"},
        "minimum": {"type": "number"},
        "maximum": {"type": "number"},
        "maxLength": positive(),
        "minLength": positive_or_0(),
        "pattern": {"type": "string", "format": "regex"},
        "enum": {"type": "array"},
        "readonly": {"type": "boolean"},
        "default": {},
        "items": {"type": "object", "properties": {"type": types(), "enum": {"type": "array"}}},
        "maxItems": positive(),
        "minItems": positive_or_0(),
        "uniqueItems": {"type": "boolean", "default": false},
        "additionalItems": {"type": "boolean"},
    })
}

fn numbers_and_texts(texts: Json) -> Json {
    json!({
        "positiveInteger": {"type": "integer", "minimum": 0},
        "positiveIntegerDefault0": {"allOf": [{"$ref": "#/definitions/positiveInteger"}, {"default": 0}]},
        "stringArray": texts,
    })
}

fn definitions() -> Json {
    let mut all =
        numbers_and_texts(json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}));
    all["property"] = json!({
        "type": "object",
        "additionalProperties": {"type": "object", "required": ["title", "type"], "properties": property_keys()},
    });
    all
}

#[rustfmt::skip]
pub fn namespace() -> Json {
    json!({
        "name": "namespace",
        "properties": {
            "namespace": {"type": "string", "description": "The unique namespace text.", "maxLength": 80},
            "display_name": {"type": "string", "description": "The user friendly name for the namespace. Used by UI if available.", "maxLength": 80},
            "description": {"type": "string", "description": "Provides a user friendly description of the namespace.", "maxLength": 500},
            "visibility": {"type": "string", "description": "Scope of namespace accessibility.", "enum": ["public", "private"]},
            "protected": {"type": "boolean", "description": "If true, namespace will not be deletable."},
            "owner": {"type": "string", "description": "Owner of the namespace.", "maxLength": 255},
            "created_at": read_only_time("Date and time of namespace creation"),
            "updated_at": read_only_time("Date and time of the last namespace modification"),
            "schema": {"readOnly": true, "type": "string"},
            "self": {"readOnly": true, "type": "string"},
            "resource_type_associations": {"type": "array", "items": {"type": "object", "properties": {
                "name": {"type": "string"}, "prefix": {"type": "string"}, "properties_target": {"type": "string"},
            }}},
            "properties": {"$ref": "#/definitions/property"},
            "objects": {"type": "array", "items": {"type": "object", "properties": {
                "name": {"type": "string"}, "description": {"type": "string"},
                "required": {"$ref": "#/definitions/stringArray"}, "properties": {"$ref": "#/definitions/property"},
            }}},
            "tags": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        },
        "additionalProperties": false,
        "definitions": definitions(),
        "required": ["namespace"],
    })
}

pub fn object() -> Json {
    json!({
        "name": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 80},
            "description": {"type": "string"},
            "required": {"$ref": "#/definitions/stringArray"},
            "properties": {"$ref": "#/definitions/property"},
            "schema": {"readOnly": true, "type": "string"},
            "self": {"readOnly": true, "type": "string"},
            "created_at": read_only_time("Date and time of object creation"),
            "updated_at": read_only_time("Date and time of the last object modification"),
        },
        "additionalProperties": false,
        "definitions": definitions(),
        "required": ["name"],
    })
}

fn property_with(required: &[&str]) -> Json {
    let texts = json!({"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": true});
    json!({
        "name": "property",
        "properties": property_keys(),
        "additionalProperties": false,
        "definitions": numbers_and_texts(texts),
        "required": required,
    })
}

pub fn property() -> Json {
    property_with(&["type", "title", "name"])
}

/// Within a collection its name is the key.
fn property_of_others() -> Json {
    property_with(&["type", "title"])
}

pub fn tag() -> Json {
    json!({
        "name": "tag",
        "properties": {
            "name": {"type": "string", "maxLength": 80},
            "created_at": read_only_time("Date and time of tag creation"),
            "updated_at": read_only_time("Date and time of the last tag modification"),
        },
        "additionalProperties": false,
        "required": ["name"],
    })
}

#[rustfmt::skip]
pub fn association() -> Json {
    let text = |description: &str| json!({"type": "string", "description": description, "maxLength": 80});
    json!({
        "name": "resource_type_association",
        "properties": {
            "name": text("Resource type names should be aligned with Heat resource types whenever possible: https://docs.openstack.org/heat/latest/template_guide/openstack.html"),
            "prefix": text("Specifies the prefix to use for the given resource type. Any properties in the namespace should be prefixed with this prefix when being applied to the specified resource type. Must include prefix separator (e.g. a colon :)."),
            "properties_target": text("Some resource types allow more than one key / value pair per instance.  For example, Cinder allows user and image metadata on volumes. Only the image properties metadata is evaluated by Nova (scheduling or drivers). This property allows a namespace target to remove the ambiguity."),
            "created_at": read_only_time("Date and time of resource type association"),
            "updated_at": read_only_time("Date and time of the last resource type association modification"),
        },
        "additionalProperties": false,
        "required": ["name"],
    })
}

/// A list of such, or for properties a dictionary.
pub fn collection(name: &str, mut one: Json) -> Json {
    let definitions = one.as_object_mut().and_then(|one| one.remove("definitions"));
    let mut properties = match name {
        "properties" => json!({ name: {"type": "object", "additionalProperties": one} }),
        _ => json!({ name: {"type": "array", "items": one} }),
    };
    for link in ["first", "next", "schema"] {
        properties[link] = json!({"type": "string"});
    }
    let links = json!([
        {"rel": "first", "href": "{first}"}, {"rel": "next", "href": "{next}"}, {"rel": "describedby", "href": "{schema}"},
    ]);
    let mut whole = json!({"name": name, "properties": properties, "links": links});
    if let Some(definitions) = definitions {
        whole["definitions"] = definitions;
    }
    whole
}

pub fn properties() -> Json {
    collection("properties", property_of_others())
}

/// What `POST …/tags` takes.
fn tags() -> Json {
    let tag = json!({
        "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"], "additionalProperties": false,
    });
    json!({"name": "tags", "properties": {"tags": {"type": "array", "items": tag}}, "additionalProperties": false})
}

/// A body's schema; its name is glance's own, no keyword of schemas.
pub struct Named {
    name: &'static str,
    schema: Schema,
}

impl Named {
    fn new(schema: Json) -> Self {
        let name = match schema["name"].as_str() {
            Some("namespace") => "namespace",
            Some("object") => "object",
            Some("property") => "property",
            Some("tag") => "tag",
            Some("tags") => "tags",
            _ => "resource_type_association",
        };
        // As upstream, which does not look at formats.
        const UNCHECKED: &[(&str, schema::Format)] =
            &[("regex", |_| Verdict::Fine), ("date-time", |_| Verdict::Fine)];
        Self { name, schema: Schema::with(schema, Dialect::Draft2020, false, UNCHECKED) }
    }

    pub fn check(&self, given: &Json) -> Result<()> {
        self.schema.check_best(given).map_err(|violation| super::refused(self.name, &violation.report()))
    }
}

pub static NAMESPACE: LazyLock<Named> = LazyLock::new(|| Named::new(namespace()));
pub static OBJECT: LazyLock<Named> = LazyLock::new(|| Named::new(object()));
pub static PROPERTY: LazyLock<Named> = LazyLock::new(|| Named::new(property()));
static PROPERTY_OF_OTHERS: LazyLock<Named> = LazyLock::new(|| Named::new(property_of_others()));
pub static TAG: LazyLock<Named> = LazyLock::new(|| Named::new(tag()));
pub static TAGS: LazyLock<Named> = LazyLock::new(|| Named::new(tags()));
pub static ASSOCIATION: LazyLock<Named> = LazyLock::new(|| Named::new(association()));

/// An object's properties are looked at one by one when it is made alone.
pub fn check_properties(given: &Json) -> Result<()> {
    let properties = given["properties"].as_object().into_iter().flatten();
    properties.into_iter().try_for_each(|(_, property)| PROPERTY_OF_OTHERS.check(property))
}

/// A property in the form in which it is kept: numbers whole, its default a text.
pub fn kept_property(given: &Json) -> Result<Json> {
    let wrong = |key: &str, value: &Json| {
        Error::bad_request(format!("Invalid input for field/attribute {key}. Value: '{value}'."))
    };
    let is_text = |value: &Json| value.is_string() || value.is_null();
    let all_texts = |value: &Json| value.as_array().is_some_and(|values| values.iter().all(is_text));
    let mut kept = serde_json::Map::new();
    for (key, value) in given.as_object().into_iter().flatten() {
        let value = match key.as_str() {
            "minimum" | "maximum" | "minLength" | "maxLength" | "minItems" | "maxItems" => {
                // Upstream keeps whole numbers alone.
                let whole = value.as_i64().or(value.as_f64().map(|number| number.trunc() as i64));
                json!(whole.ok_or_else(|| wrong(key, value))?)
            }
            "default" => default_text(value)?,
            "enum" | "operators" if !all_texts(value) => return Err(wrong(key, value)),
            "items" => {
                let known = |key: &String| key == "type" || key == "enum";
                let items = value.as_object().filter(|items| items.keys().all(known));
                let items = items.filter(|items| items.get("type").is_some_and(is_text));
                let fits = items.is_some_and(|items| items.get("enum").is_none_or(all_texts));
                if !fits {
                    return Err(wrong(key, value));
                }
                value.clone()
            }
            "name" | "title" | "description" | "operators" | "type" | "pattern" | "enum" | "readonly"
            | "uniqueItems" | "additionalItems" => value.clone(),
            _ => return Err(Error::bad_request(format!("Unknown attribute: {key}"))),
        };
        kept.insert(key.clone(), value);
    }
    Ok(Json::Object(kept))
}

fn default_text(value: &Json) -> Result<Json> {
    const NOT_ASCII: &str = "Error decoding your request. Either the URL or the request body contained characters that could not be decoded by Glance";
    Ok(match value {
        Value::String(text) if !text.is_ascii() => return Err(Error::bad_request(NOT_ASCII)),
        Value::String(_) => value.clone(),
        Value::Number(number) => json!(number.to_string()),
        Value::Bool(true) => json!("True"),
        Value::Bool(false) => json!("False"),
        _ => Json::Null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_kept_as_upstream_keeps_them() {
        let cases = [
            (json!({"default": 5}), Some(json!({"default": "5"}))),
            (json!({"default": false}), Some(json!({"default": "False"}))),
            (json!({"default": ["a"]}), Some(json!({"default": null}))),
            (json!({"default": "ä"}), None),
            (json!({"minimum": 1.5}), Some(json!({"minimum": 1}))),
            (json!({"enum": [null, "a"]}), Some(json!({"enum": [null, "a"]}))),
            (json!({"enum": [1]}), None),
            (json!({"required": ["a"]}), None),
            (json!({"items": {"type": "string", "x": 1}}), None),
            (json!({"items": {"enum": ["a"]}}), None),
        ];
        for (given, expected) in cases {
            assert_eq!(kept_property(&given).ok(), expected, "{given}");
        }
    }
}
