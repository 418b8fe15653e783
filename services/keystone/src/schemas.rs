//! The forms of request bodies, with upstream's limits. Keys in upstream's order: errors are told in it.

use base::Json;
use schema::Schema;
use serde_json::json;
use std::sync::LazyLock;

fn id() -> Json {
    json!({"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[a-zA-Z0-9-]+$"})
}

fn id_or_null() -> Json {
    json!({"type": ["string", "null"], "minLength": 1, "maxLength": 64, "pattern": "^[a-zA-Z0-9-]+$"})
}

fn name(length_max: u64) -> Json {
    json!({"type": "string", "minLength": 1, "maxLength": length_max, "pattern": "[\\S]+"})
}

fn text() -> Json {
    json!({"type": ["string", "null"]})
}

fn flag() -> Json {
    json!({"type": ["boolean", "string", "null"], "enum": [
        true, "True", "TRUE", "true", false, "False", "FALSE", "false", "", "1", "0", "y", "Y", "n", "N",
        "on", "ON", "off", "OFF", "yes", "no"
    ]})
}

fn tags() -> Json {
    json!({"type": "array", "items": tag(), "required": [], "maxItems": 80, "uniqueItems": true})
}

fn tag() -> Json {
    json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[^,/]*$"})
}

fn immutable() -> Json {
    let option = json!({"type": ["boolean", "null"], "enum": [true, false, null]});
    json!({"type": "object", "properties": {"immutable": option}, "additionalProperties": false})
}

/// A body of one key, which must be there.
fn wrapped(key: &str, inner: Json) -> Json {
    json!({"type": "object", "properties": {key: inner}, "required": [key], "additionalProperties": false})
}

macro_rules! forms {
    ($($(#[$doc:meta])* $name:ident = $json:expr;)*) => { $(
        $(#[$doc])*
        pub static $name: LazyLock<Schema> = LazyLock::new(|| Schema::new($json));
    )* };
}

fn user_options() -> Json {
    let flag = || json!({"type": ["boolean", "null"]});
    json!({"type": "object", "properties": {
        "ignore_change_password_upon_first_use": flag(), "ignore_password_expiry": flag(),
        "ignore_lockout_failure_attempts": flag(), "lock_password": flag(), "ignore_user_inactivity": flag(),
        "multi_factor_auth_enabled": flag(),
        "multi_factor_auth_rules": {"type": ["array", "null"], "items": {
            "type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": true}, "uniqueItems": true}
    }, "additionalProperties": false})
}

fn user(update: bool) -> Json {
    let properties = json!({
        "default_project_id": id_or_null(), "description": text(), "domain_id": id(), "enabled": flag(),
        "federated": {"type": "array"}, "name": name(255), "password": text(), "options": user_options(),
    });
    match update {
        false => {
            json!({"type": "object", "properties": properties, "required": ["name"], "additionalProperties": true})
        }
        true => {
            json!({"type": "object", "properties": properties, "minProperties": 1, "additionalProperties": true})
        }
    }
}

fn project(update: bool) -> Json {
    if update {
        return json!({"type": "object", "properties": {
            "description": text(), "enabled": flag(), "name": name(64), "options": immutable(), "tags": tags(),
        }});
    }
    json!({"type": "object", "properties": {
        "description": text(), "domain_id": id_or_null(), "enabled": flag(), "is_domain": flag(),
        "parent_id": id_or_null(), "name": name(64), "tags": tags(), "options": immutable(),
    }, "required": ["name"]})
}

fn domain(update: bool) -> Json {
    let description = json!({"type": ["string", "null"], "maxLength": 255});
    let mut form = json!({"type": "object", "properties": {
        "explicit_domain_id": id(), "description": description, "enabled": flag(), "name": name(64),
        "options": immutable(), "tags": tags(),
    }});
    match update {
        true => form["minProperties"] = 1.into(),
        false => form["required"] = json!(["name"]),
    }
    form
}

fn role(update: bool) -> Json {
    let mut form = json!({"type": "object", "properties": {
        "name": name(255), "description": text(), "domain_id": id_or_null(), "options": immutable(),
    }, "additionalProperties": true});
    match update {
        true => form["minProperties"] = 1.into(),
        false => form["required"] = json!(["name"]),
    }
    form
}

fn service(update: bool) -> Json {
    let word = || json!({"type": "string", "minLength": 1, "maxLength": 255});
    let mut inner = json!({"type": "object", "properties": {
        "enabled": {"type": "boolean"}, "type": word(), "name": word(),
    }, "additionalProperties": true});
    if update {
        inner["minProperties"] = 1.into();
        return json!({"type": "object", "properties": {"service": inner}, "required": ["service"]});
    }
    inner["required"] = json!(["type"]);
    json!({"type": "object", "properties": {"service": inner}})
}

fn endpoint(update: bool) -> Json {
    let region = json!({"type": ["string", "null"]});
    let mut inner = json!({"type": "object", "properties": {
        "enabled": {"type": "boolean"}, "interface": {"type": "string", "enum": ["admin", "internal", "public"]},
        "region_id": region.clone(), "region": region, "service_id": {"type": "string"}, "url": url(),
        "name": {"type": "string"}, "description": text(),
    }});
    if update {
        inner["additionalProperties"] = true.into();
        inner["minProperties"] = 1.into();
        return wrapped("endpoint", inner);
    }
    inner["required"] = json!(["interface", "service_id", "url"]);
    json!({"type": "object", "properties": {"endpoint": inner}, "additionalProperties": false})
}

fn region(update: bool) -> Json {
    let id = |length_min: u64| json!({"type": ["string", "null"], "minLength": length_min, "maxLength": 255});
    let mut inner = json!({"type": "object", "properties": {
        "description": {"type": ["string", "null"], "maxLength": 255}, "id": id(update.into()),
        "parent_region_id": id(1),
    }});
    if update {
        inner["minProperties"] = 1.into();
        return wrapped("region", inner);
    }
    json!({"type": "object", "properties": {"region": inner}, "required": ["region"]})
}

fn credential(update: bool) -> Json {
    let word = || json!({"type": "string"});
    let inner = match update {
        true => {
            json!({"type": "object", "properties": {"blob": word()}, "additionalProperties": false, "required": ["blob"]})
        }
        false => json!({"type": "object", "properties": {
            "id": word(), "blob": word(), "project_id": text(), "type": word(), "user_id": word(),
        }, "additionalProperties": true, "required": ["blob", "type", "user_id"],
            "if": {"properties": {"type": {"const": "ec2"}}},
            "then": {"required": ["blob", "type", "user_id", "project_id"]}}),
    };
    json!({"type": "object", "properties": {"credential": inner}, "required": ["credential"]})
}

fn access_rules() -> Json {
    json!({"type": "array", "items": {"type": "object", "properties": {
        "path": {"type": "string", "minLength": 0, "maxLength": 225, "pattern": "^/\\.*"},
        "service": id(), "method": {"type": "string", "enum": ["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"]},
    }, "additionalProperties": true}})
}

fn application_credential() -> Json {
    let role = json!({"type": "object", "properties": {"id": id(), "name": name(255)}, "additionalProperties": true});
    json!({"type": "object", "properties": {
        "id": {"type": "string"}, "secret": text(), "name": name(255), "description": text(), "expires_at": text(),
        "project_id": {"type": "string"}, "access_rules": access_rules(),
        "unrestricted": {"type": ["boolean", "null"]}, "roles": {"type": "array", "items": role},
    }, "required": ["name"], "additionalProperties": true})
}

fn policy(update: bool) -> Json {
    let blob = json!({"type": "string"});
    let kind = json!({"type": "string", "maxLength": 255});
    let properties = json!({"blob": blob, "type": kind});
    match update {
        true => {
            json!({"type": "object", "properties": properties, "minProperties": 1, "additionalProperties": true})
        }
        false => {
            json!({"type": "object", "properties": properties, "required": ["blob", "type"], "additionalProperties": true})
        }
    }
}

fn endpoint_group(update: bool) -> Json {
    let filters = json!({"type": "object", "properties": {
        "interface": {"type": "string", "enum": ["admin", "internal", "public"]},
        "service_id": {"type": "string"}, "region_id": text(), "enabled": {"type": "boolean"},
    }});
    let mut inner = json!({"type": "object", "properties": {
        "description": text(), "filters": filters, "name": name(255),
    }});
    if update {
        inner["minProperties"] = 1.into();
        inner["additionalProperties"] = false.into();
        return wrapped("endpoint_group", inner);
    }
    inner["required"] = json!(["name", "filters"]);
    inner["additionalProperties"] = false.into();
    json!({"type": "object", "properties": {"endpoint_group": inner}, "additionalProperties": false})
}

fn consumer(update: bool) -> Json {
    let properties = json!({"description": text()});
    match update {
        true => {
            json!({"type": "object", "properties": properties, "not": {"required": ["secret"]}, "minProperties": 1, "additionalProperties": true})
        }
        false => json!({"type": "object", "properties": properties, "additionalProperties": true}),
    }
}

fn request_token_roles() -> Json {
    json!({"type": "array", "items": {"type": "object", "properties": {"id": id(), "name": name(255)},
        "minProperties": 1, "maxProperties": 1, "additionalProperties": false}})
}

fn url() -> Json {
    json!({"type": "string", "minLength": 0, "maxLength": 225, "pattern": "^[a-zA-Z0-9+.-]+:.+"})
}

fn identity_provider(update: bool) -> Json {
    let mut inner = json!({"type": "object", "properties": {
        "enabled": flag(), "description": text(),
        "authorization_ttl": {"type": ["integer", "null"], "minimum": 0},
        "remote_ids": {"type": ["array", "null"], "items": {"type": "string", "maxLength": 64}, "uniqueItems": true},
    }, "additionalProperties": false});
    if update {
        inner["minProperties"] = 1.into();
        return json!({"type": "object", "properties": {"identity_provider": inner}, "required": ["identity_provider"]});
    }
    inner["properties"]["domain_id"] = id_or_null();
    json!({"type": "object", "properties": {"identity_provider": inner}, "additionalProperties": false})
}

fn federation_protocol(update: bool) -> Json {
    let remote = if update { "string".into() } else { json!(["string", "null"]) };
    let mut inner = json!({"type": "object", "properties": {
        "mapping_id": {"type": "string", "minLength": 1, "maxLength": 64},
        "remote_id_attribute": {"type": remote, "maxLength": 64},
    }, "additionalProperties": false, "required": ["mapping_id"]});
    if update {
        inner["minProperties"] = 1.into();
    }
    wrapped("protocol", inner)
}

fn service_provider(update: bool) -> Json {
    let mut inner = json!({"type": "object", "properties": {
        "auth_url": url(), "sp_url": url(), "description": text(), "enabled": flag(), "relay_state_prefix": text(),
    }, "additionalProperties": false});
    match update {
        true => inner["minProperties"] = 1.into(),
        false => inner["required"] = json!(["auth_url", "sp_url"]),
    }
    wrapped("service_provider", inner)
}

/// A request for an assertion to take to a service provider.
fn saml_create() -> Json {
    let id = || {
        json!({"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"],
            "additionalProperties": false})
    };
    let identity = json!({"type": "object", "properties": {"token": id(), "methods": {"type": "array"}},
        "required": ["token"], "additionalProperties": false});
    let scope = json!({"type": "object", "properties": {"service_provider": id()},
        "required": ["service_provider"], "additionalProperties": false});
    json!({"type": "object", "properties": {"identity": identity, "scope": scope},
        "required": ["identity", "scope"], "additionalProperties": false})
}

fn limit_number() -> Json {
    json!({"type": "integer", "minimum": -1, "maximum": 2147483647})
}

fn limit_text() -> Json {
    json!({"type": ["string", "null"], "maxLength": 255})
}

fn limit_region() -> Json {
    json!({"type": ["string", "null"], "minLength": 1, "maxLength": 255})
}

fn service_uuid() -> Json {
    json!({"type": "string", "format": "uuid"})
}

fn registered_limit() -> Json {
    json!({"type": "object", "properties": {
        "service_id": service_uuid(), "region_id": limit_region(), "resource_name": name(255),
        "default_limit": limit_number(), "description": limit_text(),
    }, "additionalProperties": false})
}

fn registered_limits() -> Json {
    let mut item = registered_limit();
    item["required"] = json!(["service_id", "resource_name", "default_limit"]);
    wrapped("registered_limits", json!({"type": "array", "items": item, "minItems": 1}))
}

fn limits() -> Json {
    let needs = |owner: &str| json!({"required": ["service_id", "resource_name", "resource_limit", owner]});
    let item = json!({"type": "object", "properties": {
        "project_id": id_or_null(), "domain_id": id_or_null(), "resource_name": name(255),
        "region_id": limit_region(), "service_id": service_uuid(), "resource_limit": limit_number(),
        "description": limit_text(),
    }, "required": ["service_id", "resource_name", "resource_limit"],
        "oneOf": [needs("domain_id"), needs("project_id")], "additionalProperties": false});
    wrapped("limits", json!({"type": "array", "items": item, "minItems": 1}))
}

fn limit_update() -> Json {
    let properties = json!({"resource_limit": limit_number(), "description": limit_text()});
    wrapped("limit", json!({"type": "object", "properties": properties, "additionalProperties": false}))
}

/// The whole request for a token; upstream shows all of it in its errors.
fn token_issue() -> Json {
    let word = || json!({"type": "string"});
    let domain = || json!({"type": "object", "properties": {"id": word(), "name": word()}});
    let user = json!({"type": "object", "properties": {
        "id": word(), "name": word(), "password": word(), "domain": domain(),
    }});
    let project = json!({"type": "object", "properties": {"name": word(), "id": word(), "domain": domain()}});
    json!({
        "type": "object",
        "properties": {
            "identity": {
                "type": "object",
                "properties": {
                    "methods": {"type": "array", "items": word()},
                    "password": {"type": "object", "properties": {"user": user}},
                    "token": {"type": "object", "properties": {"id": word()}, "required": ["id"]},
                },
                "required": ["methods"],
            },
            "scope": {"type": ["object", "string"], "properties": {
                "project": project,
                "domain": domain(),
                "OS-TRUST:trust": {"type": "object", "properties": {"id": word()}},
                "system": {"type": "object", "properties": {"all": {"type": "boolean", "enum": [true, false, null]}}},
            }},
        },
        "required": ["identity"],
    })
}

forms! {
    USER_CREATE = wrapped("user", user(false));
    USER_UPDATE = wrapped("user", user(true));
    PROJECT_CREATE = json!({"type": "object", "properties": {"project": project(false)}, "additionalProperties": false});
    PROJECT_UPDATE = json!({"type": "object", "properties": {"project": project(true)}, "additionalProperties": false});
    PROJECT_TAGS = json!({"type": "object", "properties": {"tags": {"type": "array", "items": tag()}}, "additionalProperties": false});
    TAGS = tags();
    TAG = tag();
    DOMAIN_CREATE = wrapped("domain", domain(false));
    DOMAIN_UPDATE = wrapped("domain", domain(true));
    GROUP_CREATE = wrapped("group", json!({"type": "object", "properties": {
        "domain_id": id(), "description": text(), "name": name(255),
    }, "required": ["name"], "additionalProperties": true}));
    GROUP_UPDATE = wrapped("group", json!({"type": "object", "properties": {
        "description": text(), "name": name(255),
    }, "minProperties": 1, "additionalProperties": true}));
    ROLE_CREATE = wrapped("role", role(false));
    ROLE_UPDATE = wrapped("role", role(true));
    SERVICE_CREATE = service(false);
    SERVICE_UPDATE = service(true);
    ENDPOINT_CREATE = endpoint(false);
    ENDPOINT_UPDATE = endpoint(true);
    REGION_CREATE = region(false);
    REGION_UPDATE = region(true);
    CREDENTIAL_CREATE = credential(false);
    CREDENTIAL_UPDATE = credential(true);
    APPLICATION_CREDENTIAL_CREATE = wrapped("application_credential", application_credential());
    PASSWORD_CHANGE = json!({
        "type": "object",
        "properties": {"original_password": {"type": "string"}, "password": {"type": "string"}},
        "required": ["original_password", "password"],
        "additionalProperties": false,
    });
    REGISTERED_LIMITS_CREATE = registered_limits();
    REGISTERED_LIMIT_UPDATE = wrapped("registered_limit", registered_limit());
    LIMITS_CREATE = limits();
    LIMIT_UPDATE = limit_update();
    TOKEN_ISSUE = token_issue();
    POLICY_CREATE = policy(false);
    POLICY_UPDATE = policy(true);
    ENDPOINT_GROUP_CREATE = endpoint_group(false);
    ENDPOINT_GROUP_UPDATE = endpoint_group(true);
    ENDPOINT_GROUPS_QUERY = json!({
        "type": "object", "properties": {"name": name(255)}, "additionalProperties": false,
    });
    CONSUMER_CREATE = consumer(false);
    CONSUMER_UPDATE = consumer(true);
    IDENTITY_PROVIDER_CREATE = identity_provider(false);
    IDENTITY_PROVIDER_UPDATE = identity_provider(true);
    FEDERATION_PROTOCOL_CREATE = federation_protocol(false);
    FEDERATION_PROTOCOL_UPDATE = federation_protocol(true);
    SERVICE_PROVIDER_CREATE = service_provider(false);
    SERVICE_PROVIDER_UPDATE = service_provider(true);
    SAML_CREATE = saml_create();
    REQUEST_TOKEN_ROLES = request_token_roles();
    ASSIGNMENTS_QUERY = json!({
        "type": "object",
        "dependentRequired": {"include_subtree": ["scope.project.id"]},
    });
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_form_is_understood() {
        for form in [
            &super::USER_CREATE,
            &super::USER_UPDATE,
            &super::PROJECT_CREATE,
            &super::PROJECT_UPDATE,
            &super::DOMAIN_CREATE,
            &super::DOMAIN_UPDATE,
            &super::GROUP_CREATE,
            &super::ROLE_CREATE,
            &super::SERVICE_CREATE,
            &super::ENDPOINT_CREATE,
            &super::REGION_CREATE,
            &super::CREDENTIAL_CREATE,
            &super::APPLICATION_CREDENTIAL_CREATE,
            &super::TOKEN_ISSUE,
            &super::ASSIGNMENTS_QUERY,
        ] {
            assert!(form.json().is_object());
        }
    }
}
