//! The bodies and queries that placement accepts, after upstream's schemas of each microversion.

use base::{Error, Json, Result};
use schema::Schema;
use serde_json::json;
use std::sync::LazyLock;

pub const CONCURRENT_UPDATE: &str = "placement.concurrent_update";
pub const PROVIDER_NOT_FOUND: &str = "placement.resource_provider.not_found";

const UUID: &str = "^[0-9a-fA-F-]{36}$";
const NAME: &str = "^[A-Z0-9_]+$";
const CUSTOM: &str = "^CUSTOM_[A-Z0-9_]+$";
const SUFFIX: &str = "[a-zA-Z0-9_-]{1,64}";
const MAX_INT: i64 = 0x7FFF_FFFF;

/// Checks a body in placement's words.
pub fn body(schema: &Schema, value: &Json) -> Result<()> {
    schema
        .check_best(value)
        .map_err(|v| Error::bad_request(format!("JSON does not validate: {}", v.report())))
}

/// Checks the query, each name with its last value.
pub fn query(schema: &Schema, query: &web::Query) -> Result<()> {
    let pairs = query.0.iter().map(|(name, value)| (name.clone(), Json::from(value.as_str())));
    let value = Json::Object(pairs.collect());
    let sentence = |v: Box<schema::Violation>| format!("Invalid query string parameters: {}", v.report());
    schema.check_best(&value).map_err(|v| Error::bad_request(sentence(v)))
}

macro_rules! schemas {
    ($($(#[$doc:meta])* $name:ident = $value:expr;)*) => {
        $($(#[$doc])* pub static $name: LazyLock<Schema> = LazyLock::new(|| Schema::new($value));)*
    };
}

schemas! {
    PROVIDER_CREATE = object(json!({"name": provider_name(), "uuid": uuid()}), &["name"]);
    PROVIDER_CREATE_1_14 = object(
        json!({"name": provider_name(), "uuid": uuid(), "parent_provider_uuid": parent()}), &["name"]);
    PROVIDER_UPDATE = object(json!({"name": provider_name()}), &["name"]);
    PROVIDER_UPDATE_1_14 = object(json!({"name": provider_name(), "parent_provider_uuid": parent()}), &["name"]);
    INVENTORY_CREATE = {
        let mut inventory = inventory();
        inventory["properties"]["resource_class"] = json!({"type": "string", "pattern": NAME});
        inventory["required"] = json!(["total", "resource_class"]);
        inventory
    };
    INVENTORY_UPDATE = inventory();
    INVENTORIES = inventories();
    AGGREGATES = uuids();
    AGGREGATES_1_19 = object(
        json!({"aggregates": uuids(), "resource_provider_generation": {"type": "integer"}}),
        &["aggregates", "resource_provider_generation"]);
    PROVIDER_TRAITS = object(
        json!({
            "traits": {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 255}},
            "resource_provider_generation": {"type": "integer"},
        }),
        &["traits", "resource_provider_generation"]);
    RESOURCE_CLASS = object(json!({"name": {"type": "string", "pattern": CUSTOM, "maxLength": 255}}), &["name"]);
    ALLOCATIONS_1_0 = allocations_list(false);
    ALLOCATIONS_1_8 = allocations_list(true);
    ALLOCATIONS_1_12 = allocations(12);
    ALLOCATIONS_1_28 = allocations(28);
    ALLOCATIONS_1_34 = allocations(34);
    ALLOCATIONS_1_38 = allocations(38);
    MANY_ALLOCATIONS_1_13 = many(13, 1);
    MANY_ALLOCATIONS_1_28 = many(28, 1);
    MANY_ALLOCATIONS_1_34 = many(34, 1);
    MANY_ALLOCATIONS_1_38 = many(38, 1);
    RESHAPER_1_30 = reshaper(28);
    RESHAPER_1_34 = reshaper(34);
    RESHAPER_1_38 = reshaper(38);
    PROVIDERS_QUERY_1_0 = providers_query(0);
    PROVIDERS_QUERY_1_3 = providers_query(3);
    PROVIDERS_QUERY_1_4 = providers_query(4);
    PROVIDERS_QUERY_1_14 = providers_query(14);
    PROVIDERS_QUERY_1_18 = providers_query(18);
    TRAITS_QUERY = object(json!({"name": {"type": "string"}, "associated": {"type": "string"}}), &[]);
    USAGES_QUERY_1_9 = object(json!({"project_id": word(), "user_id": word()}), &["project_id"]);
    USAGES_QUERY_1_38 = {
        let consumer_type = json!({
            "type": "string", "pattern": format!("{NAME}|^all|^unknown$"), "minLength": 1, "maxLength": 255,
        });
        object(json!({"project_id": word(), "user_id": word(), "consumer_type": consumer_type}), &["project_id"])
    };
    CANDIDATES_QUERY_1_10 = candidates_query(10);
    CANDIDATES_QUERY_1_16 = candidates_query(16);
    CANDIDATES_QUERY_1_17 = candidates_query(17);
    CANDIDATES_QUERY_1_21 = candidates_query(21);
    CANDIDATES_QUERY_1_25 = candidates_query(25);
    CANDIDATES_QUERY_1_31 = candidates_query(31);
    CANDIDATES_QUERY_1_33 = candidates_query(33);
    CANDIDATES_QUERY_1_35 = candidates_query(35);
    CANDIDATES_QUERY_1_36 = candidates_query(36);
}

/// A schema per microversion: the last one that the request's version has.
pub fn of_version(request: &web::Request, table: &[(u16, &'static LazyLock<Schema>)]) -> &'static Schema {
    let Some(found) = table.iter().rev().find(|(minor, _)| request.since(1, *minor)) else {
        return table[0].1;
    };
    found.1
}

fn object(properties: Json, required: &[&str]) -> Json {
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema["additionalProperties"] = json!(false);
    schema
}

fn uuid() -> Json {
    json!({"type": "string", "format": "uuid"})
}

fn uuids() -> Json {
    json!({"type": "array", "items": uuid(), "uniqueItems": true})
}

fn word() -> Json {
    json!({"type": "string", "minLength": 1, "maxLength": 255})
}

fn provider_name() -> Json {
    json!({"type": "string", "maxLength": 200})
}

fn parent() -> Json {
    json!({"anyOf": [uuid(), {"type": "null"}]})
}

fn inventory() -> Json {
    let amount = |minimum: i64| json!({"type": "integer", "maximum": MAX_INT, "minimum": minimum});
    let properties = json!({
        "resource_provider_generation": {"type": "integer"},
        "total": amount(1),
        "reserved": amount(0),
        "min_unit": amount(1),
        "max_unit": amount(1),
        "step_size": amount(1),
        "allocation_ratio": {"type": "number", "maximum": 3.40282e38},
    });
    object(properties, &["total", "resource_provider_generation"])
}

fn inventories() -> Json {
    let mut record = inventory();
    record["required"] = json!(["total"]);
    let properties = json!({
        "resource_provider_generation": {"type": "integer"},
        "inventories": {"type": "object", "patternProperties": {NAME: record}},
    });
    object(properties, &["resource_provider_generation", "inventories"])
}

fn resources() -> Json {
    json!({
        "type": "object", "minProperties": 1,
        "patternProperties": {NAME: {"type": "integer", "minimum": 1}},
        "additionalProperties": false,
    })
}

fn allocations_list(with_owner: bool) -> Json {
    let provider = json!({
        "type": "object", "properties": {"uuid": uuid()}, "additionalProperties": false, "required": ["uuid"],
    });
    let item = object(
        json!({"resource_provider": provider, "resources": resources()}),
        &["resource_provider", "resources"],
    );
    let mut properties = json!({"allocations": {"type": "array", "minItems": 1, "items": item}});
    if !with_owner {
        return object(properties, &["allocations"]);
    }
    properties["project_id"] = word();
    properties["user_id"] = word();
    object(properties, &["allocations", "project_id", "user_id"])
}

fn allocations(minor: u16) -> Json {
    let one = object(json!({"generation": {"type": "integer"}, "resources": resources()}), &["resources"]);
    let at_least = u8::from(minor == 12);
    let all = json!({
        "type": "object", "minProperties": at_least, "patternProperties": {UUID: one}, "additionalProperties": false,
    });
    let mut properties = json!({"allocations": all, "project_id": word(), "user_id": word()});
    let mut required = vec!["allocations", "project_id", "user_id"];
    if minor >= 28 {
        properties["consumer_generation"] =
            json!({"type": ["integer", "null"], "additionalProperties": false});
        required.push("consumer_generation");
    }
    if minor >= 34 {
        let group = json!({"type": "array", "minItems": 1, "items": uuid()});
        properties["mappings"] =
            json!({"type": "object", "minProperties": 1, "patternProperties": {SUFFIX: group}});
    }
    if minor >= 38 {
        properties["consumer_type"] =
            json!({"type": "string", "pattern": NAME, "minLength": 1, "maxLength": 255});
        required.push("consumer_type");
    }
    json!({"type": "object", "properties": properties, "additionalProperties": false, "required": required})
}

fn many(minor: u16, at_least: u8) -> Json {
    json!({
        "type": "object", "minProperties": at_least, "additionalProperties": false,
        "patternProperties": {UUID: allocations(minor)},
    })
}

fn reshaper(minor: u16) -> Json {
    let all = json!({
        "type": "object", "patternProperties": {UUID: inventories()}, "minProperties": 1, "additionalProperties": false,
    });
    object(json!({"inventories": all, "allocations": many(minor, 0)}), &["inventories", "allocations"])
}

fn providers_query(minor: u16) -> Json {
    let mut properties = json!({"name": {"type": "string"}, "uuid": uuid()});
    for (since, name) in [(3, "member_of"), (4, "resources")] {
        if minor >= since {
            properties[name] = json!({"type": "string"});
        }
    }
    if minor >= 14 {
        properties["in_tree"] = uuid();
    }
    if minor >= 18 {
        properties["required"] = json!({"type": "string"});
    }
    object(properties, &[])
}

fn candidates_query(minor: u16) -> Json {
    let mut properties = json!({});
    let mut required: &[&str] = &[];
    if minor < 25 {
        properties["resources"] = json!({"type": "string"});
        required = &["resources"];
    }
    if minor >= 16 {
        properties["limit"] =
            json!({"type": ["integer", "string"], "pattern": "^[1-9][0-9]*$", "minimum": 1, "minLength": 1});
    }
    for (since, name) in [(17, "required"), (21, "member_of")] {
        if minor >= since && minor < 25 {
            properties[name] = json!({"type": ["string"]});
        }
    }
    if minor < 25 {
        return object(properties, required);
    }
    properties["group_policy"] = json!({"type": "string", "enum": ["none", "isolate"]});
    for (since, name) in [(35, "root_required"), (36, "same_subtree")] {
        if minor >= since {
            properties[name] = json!({"type": ["string"]});
        }
    }
    let suffix = if minor >= 33 { SUFFIX } else { "[1-9][0-9]*" };
    let mut patterns = json!({});
    for (since, name) in [(25, "resources"), (25, "required"), (25, "member_of"), (31, "in_tree")] {
        if minor >= since {
            patterns[format!("^{name}({suffix})?$")] = json!({"type": "string"});
        }
    }
    let mut schema = object(properties, required);
    schema["patternProperties"] = patterns;
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mistake in a schema panics when it is first used: better here.
    #[test]
    fn all_compile() {
        for minor in [10, 16, 17, 21, 25, 31, 33, 35, 36] {
            Schema::new(candidates_query(minor));
        }
        for minor in [28, 34, 38] {
            Schema::new(reshaper(minor));
        }
        let query = web::Query::parse("resources=VCPU:1&resources_A=VCPU:1&group_policy=none");
        assert!(super::query(&CANDIDATES_QUERY_1_36, &query).is_ok());
        assert!(super::query(&CANDIDATES_QUERY_1_10, &query).is_err());
    }
}
