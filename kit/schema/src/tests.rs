//! Against what Python's jsonschema answered to the same schemas and values (`cases.json`).

use super::*;
use serde_json::json;

#[test]
fn the_texts_are_pythons() {
    let cases: Vec<Json> = serde_json::from_str(include_str!("cases.json")).unwrap();
    assert!(cases.len() > 60);
    for case in cases {
        let schema = case["schema"].clone();
        let (dialect, strings) = match case["service"].as_str().unwrap() {
            "nova" => (Dialect::Draft2020, true),
            "cinder" => (Dialect::Draft4, true),
            _ => (Dialect::Draft2020, false),
        };
        let schema = Schema::with(schema, dialect, strings, formats::COMMON);
        let value = &case["value"];
        let told = |found: Result<(), Box<Violation>>, text: fn(&Violation) -> String| match found {
            Ok(()) => Json::Null,
            Err(violation) => text(&violation).into(),
        };
        assert_eq!(told(schema.check(value), Violation::body), case["body"], "{case}");
        assert_eq!(told(schema.check(value), Violation::resource), case["resource"], "{case}");
        assert_eq!(told(schema.check_best(value), Violation::report), case["best"], "{case}");
    }
}

#[test]
fn names_as_nova_takes_them() {
    let schema = Schema::nova(json!({"properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 255, "format": "name"},
        "old": {"type": "string", "format": "name_with_leading_trailing_spaces"},
        "zone": {"type": "string", "format": "az_name"}
    }}));
    let fine = [json!({"name": "a b"}), json!({"name": "é"}), json!({"old": " a "}), json!({"zone": "nova"})];
    for value in fine {
        assert!(schema.check(&value).is_ok(), "{value}");
    }
    let wrong = [
        (
            json!({"name": " a"}),
            "The name must be: printable characters. Can not start or end with whitespace.",
        ),
        (json!({"name": "a\n"}), "printable characters. Can not"),
        (json!({"name": "😀"}), "printable characters. Can not"),
        (json!({"old": "  "}), "printable characters with at least one non space character"),
        (json!({"zone": "a:b"}), "printable characters except :.Can not start or end with whitespace."),
        (json!({"name": ""}), "Invalid input for field/attribute name. Value: . '' should be non-empty"),
    ];
    for (value, expected) in wrong {
        let message = schema.body(&value).unwrap_err().message;
        assert!(message.contains(expected), "{value}: {message}");
    }
}

#[test]
fn names_as_cinder_takes_them() {
    let schema = Schema::cinder(json!({"properties": {
        "name": {"type": ["string", "null"], "format": "name_skip_leading_trailing_spaces"},
        "zone": {"type": ["string", "null"], "format": "availability_zone"}
    }}));
    assert!(schema.check(&json!({"name": " a ", "zone": null})).is_ok());
    for (value, expected) in [
        (json!({"name": null}), "The 'name' can not be None."),
        (json!({"name": "  "}), "The 'name' can not be empty."),
        (json!({"name": "x".repeat(256)}), "The 'name' can not be greater than 255 characters."),
        (json!({"zone": "x".repeat(256)}), "availability_zone has 256 characters, more than 255."),
    ] {
        let message = schema.body(&value).unwrap_err().message;
        assert!(message.ends_with(expected), "{value}: {message}");
    }
}

#[test]
fn a_query_names_its_parameter() {
    let schema = Schema::nova(json!({
        "properties": {"limit": {"type": "array", "items": {"type": "string", "pattern": "^[0-9]*$"}, "maxItems": 1}},
        "additionalProperties": false
    }));
    let message = schema.query(&json!({"limit": ["x"]})).unwrap_err().message;
    assert_eq!(message, "Invalid input for query parameters limit. Value: x. 'x' does not match '^[0-9]*$'");
    let message = schema.query(&json!({"limit": ["1", "2"]})).unwrap_err().message;
    assert_eq!(
        message,
        "Invalid input for query parameters limit. Value: ['1', '2']. ['1', '2'] is too long"
    );
}

#[test]
#[should_panic(expected = "unknown keyword")]
fn a_keyword_not_understood_is_refused() {
    Schema::new(json!({"properties": {"a": {"maxLenght": 1}}}));
}

#[test]
fn definitions_are_followed_and_not_named_in_paths() {
    let schema = Schema::new(json!({
        "name": "thing",
        "properties": {"texts": {"$ref": "#/definitions/texts"}},
        "definitions": {"texts": {"type": "array", "items": {"type": "string"}}},
    }));
    assert!(schema.check_best(&json!({"texts": ["a"]})).is_ok());
    let report = schema.check_best(&json!({"texts": [1]})).unwrap_err().report();
    assert!(report.contains("in schema['properties']['texts']['items']:"), "{report}");
}
