//! The forms of request bodies, with upstream's limits. Microversions are data: `x-since` and `x-until` beside a
//! property say when it is there, and a list of forms has the one that holds.

pub mod moves;

use base::{Json, Version};
use parking_lot::RwLock;
use schema::Schema;
use serde_json::{Map, json};
use std::{collections::HashMap, sync::Arc};

/// A form for every version; made once for each version that asks.
pub struct Form {
    json: fn() -> Json,
    made: RwLock<Option<HashMap<Version, Arc<Schema>>>>,
}

impl Form {
    pub const fn new(json: fn() -> Json) -> Self {
        Self { json, made: RwLock::new(None) }
    }

    pub fn at(&self, version: Version) -> Arc<Schema> {
        if let Some(schema) = self.made.read().as_ref().and_then(|made| made.get(&version)) {
            return schema.clone();
        }
        let json = in_version(&(self.json)(), version).unwrap_or(Json::Bool(true));
        let schema = Arc::new(Schema::nova(json));
        self.made.write().get_or_insert_default().insert(version, schema.clone());
        schema
    }
}

/// The form without what the version does not have; none when it has nothing of it.
fn in_version(form: &Json, version: Version) -> Option<Json> {
    let bound = |object: &Map<String, Json>, name: &str| -> Option<Version> {
        object.get(name).and_then(Json::as_str).and_then(|text| text.parse().ok())
    };
    let object = match form {
        Json::Object(object) => object,
        other => return Some(other.clone()),
    };
    if bound(object, "x-since").is_some_and(|since| version < since)
        || bound(object, "x-until").is_some_and(|until| version > until)
    {
        return None;
    }
    let mut kept = Map::new();
    for (key, value) in object {
        match (key.as_str(), value) {
            ("x-since" | "x-until", _) => {}
            ("properties", Json::Object(properties)) => {
                let there = properties.iter().filter_map(|(name, one)| {
                    let found = match one {
                        Json::Array(forms) => forms.iter().find_map(|form| in_version(form, version)),
                        one => in_version(one, version),
                    };
                    Some((name.clone(), found?))
                });
                kept.insert(key.clone(), Json::Object(there.collect()));
            }
            ("required", Json::Array(names)) => {
                let there = names.iter().filter_map(|name| match name.as_str()?.split_once('@') {
                    None => Some(name.clone()),
                    Some((name, since)) => {
                        (version >= since.parse().ok()?).then(|| Json::String(name.to_string()))
                    }
                });
                kept.insert(key.clone(), there.collect::<Vec<_>>().into());
            }
            (_, Json::Array(items)) => {
                let there = items.iter().filter_map(|item| in_version(item, version));
                kept.insert(key.clone(), there.collect::<Vec<_>>().into());
            }
            (_, value) => {
                if let Some(value) = in_version(value, version) {
                    kept.insert(key.clone(), value);
                }
            }
        }
    }
    Some(Json::Object(kept))
}

pub fn name() -> Json {
    json!({"type": "string", "format": "name", "minLength": 1, "maxLength": 255})
}

pub fn boolean() -> Json {
    json!({"type": ["boolean", "string"], "enum": [
        true, "True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes",
        false, "False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no",
    ]})
}

fn positive() -> Json {
    json!({"type": ["integer", "string"], "pattern": "^[0-9]*$", "minimum": 1, "minLength": 1})
}

fn metadata() -> Json {
    json!({
        "type": "object",
        "patternProperties": {"^[a-zA-Z0-9-_:. ]{1,255}$": {"type": "string", "maxLength": 255}},
        "additionalProperties": false,
    })
}

fn tag() -> Json {
    json!({"type": "string", "minLength": 1, "maxLength": 60, "pattern": "^[^,/]*$"})
}

fn since(version: &str, mut form: Json) -> Json {
    form["x-since"] = version.into();
    form
}

fn until(version: &str, mut form: Json) -> Json {
    form["x-until"] = version.into();
    form
}

fn description() -> Json {
    json!({"type": ["string", "null"], "pattern": "^[^\\p{C}\\p{Zl}\\p{Zp}]*$", "minLength": 0,
           "maxLength": 255})
}

fn hostname() -> Json {
    json!([
        {"type": "string", "pattern": "^[a-zA-Z0-9]+[a-zA-Z0-9-]*[a-zA-Z0-9]+$", "minLength": 2,
         "maxLength": 63, "x-since": "2.90", "x-until": "2.93"},
        {"type": "string", "pattern": "^[a-zA-Z0-9-._]*$", "minLength": 1, "maxLength": 255,
         "x-since": "2.94"},
    ])
}

fn fqdn() -> Json {
    json!({"type": "string", "pattern": "^[a-zA-Z0-9-._]*$", "minLength": 1, "maxLength": 255})
}

fn address(format: &str) -> Json {
    json!({"type": "string", "format": format})
}

fn ip_address() -> Json {
    json!({"type": "string", "oneOf": [{"format": "ipv4"}, {"format": "ipv6"}]})
}

fn disk_config() -> Json {
    json!({"type": "string", "enum": ["AUTO", "MANUAL"]})
}

fn personality() -> Json {
    until(
        "2.56",
        json!({"type": "array", "items": {
            "type": "object",
            "properties": {"path": {"type": "string"}, "contents": {"type": "string", "format": "base64"}},
            "additionalProperties": false,
        }}),
    )
}

fn trusted_certificates() -> Json {
    since(
        "2.63",
        json!({
            "type": ["array", "null"], "minItems": 1, "maxItems": 50, "uniqueItems": true,
            "items": {"type": "string", "minLength": 1},
        }),
    )
}

fn flavor_ref() -> Json {
    json!({"type": ["string", "integer"], "minLength": 1})
}

fn legacy_device() -> Map<String, Json> {
    let form = json!({
        "virtual_name": {"type": "string", "maxLength": 255},
        "volume_id": {"type": "string", "minLength": 1, "maxLength": 255},
        "snapshot_id": {"type": "string", "format": "uuid"},
        "volume_size": {"type": ["integer", "string"], "pattern": "^[0-9]+$", "minimum": 1,
                        "minLength": 1, "maximum": 0x7fff_ffff_u32},
        "device_name": {"type": "string", "minLength": 1, "maxLength": 255,
                        "pattern": "^[a-zA-Z0-9._/-]*$"},
        "delete_on_termination": boolean(),
        "no_device": {},
        "connection_info": {"type": "string", "maxLength": 16_777_215},
    });
    form.as_object().cloned().unwrap_or_default()
}

fn device() -> Json {
    let mut properties = legacy_device();
    let more = json!({
        "source_type": {"type": "string", "enum": ["volume", "image", "snapshot", "blank"]},
        "uuid": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[a-zA-Z0-9._-]*$"},
        "image_id": {"type": "string", "format": "uuid"},
        "destination_type": {"type": "string", "enum": ["local", "volume"]},
        "guest_format": {"type": "string", "maxLength": 255},
        "device_type": {"type": "string", "maxLength": 255},
        "disk_bus": {"type": "string", "maxLength": 255},
        "boot_index": {"type": ["integer", "string", "null"], "pattern": "^-?[0-9]+$"},
        // Upstream had it in 2.32 by mistake alone, and again since 2.42.
        "tag": [until("2.32", since("2.32", tag())), since("2.42", tag())],
        "volume_type": since("2.67", json!({"type": ["string", "null"], "minLength": 0, "maxLength": 255})),
    });
    properties.extend(more.as_object().cloned().unwrap_or_default());
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

fn networks() -> Json {
    let port = json!({"type": ["string", "null"], "format": "uuid"});
    let item = |uuid: Json| {
        json!({
            "type": "object",
            "properties": {
                "fixed_ip": ip_address(), "port": port, "uuid": uuid,
                "tag": [until("2.36", since("2.32", tag())), since("2.42", tag())],
            },
            "additionalProperties": false,
        })
    };
    json!([
        {"type": "array", "items": item(json!({"type": "string"})), "x-until": "2.36"},
        {"oneOf": [
            {"type": "array", "items": item(json!({"type": "string", "format": "uuid"}))},
            {"type": "string", "enum": ["none", "auto"]},
        ]},
    ])
}

fn hints() -> Json {
    let uuid = json!({"type": "string", "format": "uuid"});
    json!({
        "type": "object",
        "properties": {
            "group": {"oneOf": [{"type": "array", "items": uuid}, uuid]},
            "different_host": {"oneOf": [uuid, {"type": "array", "items": uuid}]},
            "same_host": {"type": ["string", "array"], "items": uuid},
            "query": {"type": ["string", "object"]},
            "target_cell": name(),
            "different_cell": {"type": ["string", "array"], "items": {"type": "string"}},
            "build_near_host_ip": ip_address(),
            "cidr": {"type": "string", "pattern": "^/[0-9a-f.:]+$"},
        },
        "additionalProperties": true,
    })
}

pub static SERVER_CREATE: Form = Form::new(|| {
    json!({
        "type": "object",
        "properties": {
            "server": {
                "type": "object",
                "properties": {
                    "name": name(),
                    "imageRef": {"oneOf": [
                        {"type": "string", "format": "uuid"}, {"type": "string", "maxLength": 0},
                    ]},
                    "flavorRef": flavor_ref(),
                    "adminPass": {"type": "string"},
                    "metadata": metadata(),
                    "networks": networks(),
                    "OS-DCF:diskConfig": disk_config(),
                    "accessIPv4": address("ipv4"),
                    "accessIPv6": address("ipv6"),
                    "personality": personality(),
                    "availability_zone": name(),
                    "block_device_mapping": {"type": "array", "items": {
                        "type": "object", "properties": legacy_device(), "additionalProperties": false,
                    }},
                    "block_device_mapping_v2": {"type": "array", "items": device()},
                    "config_drive": boolean(),
                    "key_name": name(),
                    "min_count": positive(),
                    "max_count": positive(),
                    "return_reservation_id": boolean(),
                    "security_groups": {"type": "array", "items": {
                        "type": "object", "properties": {"name": name()}, "additionalProperties": false,
                    }},
                    "user_data": {"type": "string", "format": "base64", "maxLength": 65535},
                    "description": since("2.19", description()),
                    "tags": since("2.52", json!({"type": "array", "items": tag(), "maxItems": 50})),
                    "trusted_image_certificates": trusted_certificates(),
                    "host": since("2.74", fqdn()),
                    "hypervisor_hostname": since("2.74", fqdn()),
                    "hostname": hostname(),
                },
                "required": ["name", "flavorRef", "networks@2.37"],
                "additionalProperties": false,
            },
            "os:scheduler_hints": hints(),
            "OS-SCH-HNT:scheduler_hints": hints(),
        },
        "required": ["server"],
        "additionalProperties": false,
    })
});

pub static SERVER_UPDATE: Form = Form::new(|| {
    json!({
        "type": "object",
        "properties": {"server": {
            "type": "object",
            "properties": {
                "name": name(),
                "OS-DCF:diskConfig": disk_config(),
                "accessIPv4": address("ipv4"),
                "accessIPv6": address("ipv6"),
                "description": since("2.19", description()),
                "hostname": hostname(),
                "pinned_availability_zone": since("2.104", json!({"oneOf": [
                    {"type": "string", "minLength": 1, "maxLength": 255}, {"type": "null"},
                ]})),
            },
            "additionalProperties": false,
        }},
        "required": ["server"],
        "additionalProperties": false,
    })
});

pub static REBUILD: Form = Form::new(|| {
    let mut key_name = name();
    key_name["type"] = json!(["string", "null"]);
    json!({
        "type": "object",
        "properties": {"rebuild": {
            "type": "object",
            "properties": {
                "name": name(),
                "imageRef": {"type": "string", "format": "uuid"},
                "adminPass": {"type": "string"},
                "metadata": metadata(),
                "preserve_ephemeral": boolean(),
                "OS-DCF:diskConfig": disk_config(),
                "accessIPv4": address("ipv4"),
                "accessIPv6": address("ipv6"),
                "personality": personality(),
                "description": since("2.19", description()),
                "key_name": since("2.54", key_name),
                "user_data": since("2.57", json!({"type": ["string", "null"], "format": "base64",
                                                  "maxLength": 65535})),
                "trusted_image_certificates": trusted_certificates(),
                "hostname": hostname(),
            },
            "required": ["imageRef"],
            "additionalProperties": false,
        }},
        "required": ["rebuild"],
        "additionalProperties": false,
    })
});

/// Of create, update and update all.
pub static METADATA: Form = Form::new(|| {
    json!({
        "type": "object", "properties": {"metadata": metadata()},
        "required": ["metadata"], "additionalProperties": false,
    })
});

pub static METADATA_ITEM: Form = Form::new(|| {
    let mut one = metadata();
    one["minProperties"] = 1.into();
    one["maxProperties"] = 1.into();
    json!({
        "type": "object", "properties": {"meta": one}, "required": ["meta"], "additionalProperties": false,
    })
});

pub static TAGS: Form = Form::new(|| {
    json!({
        "title": "tags", "type": "object",
        "properties": {"tags": {"type": "array", "items": tag(), "maxItems": 50}},
        "required": ["tags"], "additionalProperties": false,
    })
});

pub static TAG: Form = Form::new(tag);

pub static REBOOT: Form = Form::new(|| {
    json!({
        "type": "object",
        "properties": {"reboot": {
            "type": "object",
            "properties": {"type": {
                "type": "string", "enum": ["HARD", "Hard", "hard", "SOFT", "Soft", "soft"],
            }},
            "required": ["type"],
            "additionalProperties": false,
        }},
        "required": ["reboot"],
        "additionalProperties": false,
    })
});

pub static LOCK: Form = Form::new(|| {
    json!({
        "type": "object",
        "properties": {"lock": [
            {"x-until": "2.72"},
            {"type": ["object", "null"],
             "properties": {"locked_reason": {"type": "string", "minLength": 1, "maxLength": 255}},
             "additionalProperties": false},
        ]},
        "required": ["lock"],
        "additionalProperties": false,
    })
});

pub static CONSOLE_OUTPUT: Form = Form::new(|| {
    json!({
        "type": "object",
        "properties": {"os-getConsoleOutput": {
            "type": "object",
            "properties": {"length": {
                "type": ["integer", "string", "null"], "pattern": "^-?[0-9]+$", "minimum": -1,
            }},
            "additionalProperties": false,
        }},
        "required": ["os-getConsoleOutput"],
        "additionalProperties": false,
    })
});

pub static RESET_STATE: Form = Form::new(|| {
    json!({
        "type": "object",
        "properties": {"os-resetState": {
            "type": "object",
            "properties": {"state": {"type": "string", "enum": ["active", "error"]}},
            "required": ["state"],
            "additionalProperties": false,
        }},
        "required": ["os-resetState"],
        "additionalProperties": false,
    })
});

pub static VOLUME_ATTACHMENT_CREATE: Form = Form::new(|| {
    json!({
        "type": "object",
        "properties": {"volumeAttachment": {
            "type": "object",
            "properties": {
                "volumeId": {"type": "string", "format": "uuid"},
                "device": {"type": ["string", "null"],
                           "pattern": "(^/dev/x{0,1}[a-z]{0,1}d{0,1})([a-z]+)[0-9]*$"},
                "tag": since("2.49", tag()),
                "delete_on_termination": since("2.79", boolean()),
            },
            "required": ["volumeId"],
            "additionalProperties": false,
        }},
        "required": ["volumeAttachment"],
        "additionalProperties": false,
    })
});

pub static VOLUME_ATTACHMENT_UPDATE: Form = Form::new(|| {
    json!({
        "type": "object",
        "properties": {"volumeAttachment": {
            "type": "object",
            "properties": {
                "volumeId": {"type": "string", "format": "uuid"},
                "device": {"type": ["string", "null"],
                           "pattern": "(^/dev/x{0,1}[a-z]{0,1}d{0,1})([a-z]+)[0-9]*$"},
                "tag": tag(),
                "delete_on_termination": boolean(),
                "serverId": {"type": "string", "format": "uuid"},
                "id": {"type": "string", "format": "uuid"},
            },
            "required": ["volumeId"],
            "additionalProperties": false,
        }},
        "required": ["volumeAttachment"],
        "additionalProperties": false,
    })
});

pub static CHANGE_PASSWORD: Form = Form::new(|| {
    json!({
        "type": "object",
        "properties": {"changePassword": {
            "type": "object", "properties": {"adminPass": {"type": "string"}},
            "required": ["adminPass"], "additionalProperties": false,
        }},
        "required": ["changePassword"],
        "additionalProperties": false,
    })
});

pub static TRIGGER_CRASH_DUMP: Form = Form::new(|| {
    json!({
        "type": "object",
        "properties": {"trigger_crash_dump": {"type": "null"}},
        "required": ["trigger_crash_dump"],
        "additionalProperties": false,
    })
});

pub static INJECT_NETWORK_INFO: Form = Form::new(|| {
    json!({
        "type": "object",
        "properties": {"injectNetworkInfo": {}},
        "required": ["injectNetworkInfo"],
        "additionalProperties": false,
    })
});

pub static ADD_FIXED_IP: Form = Form::new(|| {
    json!({
        "type": "object",
        "properties": {"addFixedIp": {
            "type": "object",
            "properties": {"networkId": {"type": ["string", "number"], "minLength": 1, "maxLength": 36}},
            "required": ["networkId"],
            "additionalProperties": false,
        }},
        "required": ["addFixedIp"],
        "additionalProperties": false,
    })
});

pub static REMOVE_FIXED_IP: Form = Form::new(|| {
    json!({
        "type": "object",
        "properties": {"removeFixedIp": {
            "type": "object",
            "properties": {"address": {
                "type": "string", "oneOf": [{"format": "ipv4"}, {"format": "ipv6"}],
            }},
            "required": ["address"],
            "additionalProperties": false,
        }},
        "required": ["removeFixedIp"],
        "additionalProperties": false,
    })
});

fn named(action: &str) -> Json {
    json!({
        "type": "object",
        "properties": {action: {
            "type": "object", "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 255}},
            "required": ["name"], "additionalProperties": true,
        }},
        "required": [action],
        "additionalProperties": false,
    })
}

/// Of the old path that neutron's groups are made and changed by.
pub static SECURITY_GROUP: Form = Form::new(|| {
    let text = json!({"type": "string", "minLength": 0, "maxLength": 255});
    json!({"type": "object", "required": ["security_group"], "properties": {"security_group": {
        "type": "object", "required": ["name", "description"],
        "properties": {"name": text, "description": text}}}})
});

pub static SECURITY_GROUP_RULE: Form = Form::new(|| {
    json!({"type": "object", "required": ["security_group_rule"], "properties": {"security_group_rule": {
        "type": "object", "required": ["parent_group_id"], "properties": {
            "group_id": {"type": ["string", "null"], "format": "uuid"},
            "parent_group_id": {"type": "string", "format": "uuid"}}}}})
});

pub static ADD_SECURITY_GROUP: Form = Form::new(|| named("addSecurityGroup"));

pub static REMOVE_SECURITY_GROUP: Form = Form::new(|| named("removeSecurityGroup"));

pub static EXTERNAL_EVENTS: Form = Form::new(|| {
    // Newer names come behind older ones; each version has its own list.
    let mut names: Vec<Json> = Vec::new();
    for (at, (_, from)) in EXTERNAL_EVENT_NAMES.iter().enumerate() {
        let known: Vec<&str> =
            EXTERNAL_EVENT_NAMES[..=at].iter().flat_map(|(names, _)| *names).copied().collect();
        names.insert(0, since(from, json!({"type": "string", "enum": known})));
    }
    json!({
        "type": "object",
        "properties": {"events": {"type": "array", "minItems": 1, "items": {
            "type": "object",
            "properties": {
                "server_uuid": {"type": "string", "format": "uuid"},
                "name": names,
                "status": {"type": "string", "enum": ["failed", "completed", "in-progress"]},
                "tag": {"type": "string", "maxLength": 255},
            },
            "required": ["server_uuid", "name"],
            "additionalProperties": false,
        }}},
        "required": ["events"],
        "additionalProperties": false,
    })
});

const EXTERNAL_EVENT_NAMES: [(&[&str], &str); 5] = [
    (&["network-changed", "network-vif-plugged", "network-vif-unplugged", "network-vif-deleted"], "2.1"),
    (&["volume-extended"], "2.51"),
    (&["power-update"], "2.76"),
    (&["accelerator-request-bound"], "2.82"),
    (&["volume-reimaged"], "2.93"),
];

pub static INSTANCE_ACTIONS_QUERY: Form = Form::new(|| {
    let one = |item: Json| json!({"type": "array", "items": item, "maxItems": 1});
    let time = || one(json!({"type": "string", "format": "date-time"}));
    json!({
        "type": "object",
        "properties": {
            "limit": one(json!({"type": ["integer", "string"], "pattern": "^[0-9]*$", "minimum": 0,
                                "minLength": 1})),
            "marker": one(json!({"type": "string"})),
            "changes-since": time(),
            "changes-before": since("2.66", time()),
        },
        "additionalProperties": false,
    })
});

/// A query against its form: an object of lists.
pub fn check_query(form: &Form, request: &web::Request) -> base::Result<()> {
    let mut query = Map::new();
    for (key, value) in &request.query.0 {
        if let Json::Array(values) = query.entry(key.clone()).or_insert_with(|| json!([])) {
            values.push(value.clone().into());
        }
    }
    form.at(request.version()).query(&Json::Object(query))
}

pub static INTERFACE_CREATE: Form = Form::new(|| {
    json!({
        "type": "object",
        "properties": {"interfaceAttachment": {
            "type": "object",
            "properties": {
                "net_id": {"type": "string", "format": "uuid"},
                "port_id": {"type": "string", "format": "uuid"},
                "fixed_ips": {"type": "array", "minItems": 1, "maxItems": 1, "items": {
                    "type": "object", "properties": {"ip_address": ip_address()},
                    "required": ["ip_address"], "additionalProperties": false,
                }},
                "tag": since("2.49", tag()),
            },
            "additionalProperties": false,
        }},
        "additionalProperties": false,
    })
});

/// Values of a query come as lists.
fn many(item: Json) -> Json {
    json!({"type": "array", "items": item})
}

const SORT_KEYS: &[&str] = &[
    "launched_at",
    "display_name",
    "launch_index",
    "display_description",
    "config_drive",
    "project_id",
    "locked_by",
    "ramdisk_id",
    "auto_disk_config",
    "root_device_name",
    "kernel_id",
    "access_ip_v6",
    "terminated_at",
    "availability_zone",
    "uuid",
    "created_at",
    "access_ip_v4",
    "progress",
    "locked",
    "host",
    "hostname",
    "image_ref",
    "power_state",
    "key_name",
    "task_state",
    "user_id",
    "node",
    "vm_state",
    "updated_at",
    "instance_type_id",
];

/// Taken and not heeded before 2.75.
const SORT_KEYS_OF_OLD: &[&str] = &[
    "architecture",
    "cell_name",
    "cleaned",
    "default_ephemeral_device",
    "default_swap_device",
    "deleted",
    "deleted_at",
    "disable_terminate",
    "ephemeral_gb",
    "ephemeral_key_uuid",
    "id",
    "key_data",
    "launched_on",
    "memory_mb",
    "os_type",
    "reservation_id",
    "root_gb",
    "shutdown_terminate",
    "user_data",
    "vcpus",
    "vm_mode",
];

const QUERY_TEXTS: &[&str] = &[
    "user_id",
    "project_id",
    "tenant_id",
    "launch_index",
    "image_ref",
    "image",
    "vm_state",
    "task_state",
    "host",
    "uuid",
    "sort_dir",
    "all_tenants",
    "soft_deleted",
    "deleted",
    "status",
    "block_device_mapping",
    "services",
    "metadata",
    "system_metadata",
    "info_cache",
    "security_groups",
    "pci_devices",
];

const QUERY_PATTERNS: &[&str] = &[
    "kernel_id",
    "ramdisk_id",
    "hostname",
    "key_name",
    "power_state",
    "node",
    "flavor",
    "reservation_id",
    "launched_at",
    "terminated_at",
    "availability_zone",
    "name",
    "display_name",
    "description",
    "display_description",
    "locked_by",
    "root_device_name",
    "config_drive",
    "access_ip_v4",
    "access_ip_v6",
    "auto_disk_config",
    "progress",
    "ip",
    "ip6",
    "created_at",
];

pub static SERVER_QUERY: Form = Form::new(|| {
    let mut properties = Map::new();
    for name in QUERY_TEXTS {
        properties.insert((*name).into(), many(json!({"type": "string"})));
    }
    for name in QUERY_PATTERNS {
        properties.insert((*name).into(), many(json!({"type": "string", "format": "regex"})));
    }
    let number = json!({"type": "string", "format": "string", "pattern": "^[0-9]*$"});
    let old: Vec<&str> = SORT_KEYS.iter().chain(SORT_KEYS_OF_OLD).copied().collect();
    let sort_key = json!([
        {"type": "array", "items": {"type": "string", "enum": old}, "x-until": "2.74"},
        {"type": "array", "items": {"type": "string", "enum": SORT_KEYS}},
    ]);
    let time = many(json!({"type": "string", "format": "date-time"}));
    let texts = many(json!({"type": "string"}));
    let more = json!({
        "limit": {"type": "array", "items": number, "maxItems": 1},
        "marker": many(json!({"type": "string"})),
        "sort_key": sort_key,
        "changes-since": time,
        "changes-before": since("2.66", time.clone()),
        "tags": since("2.26", many(json!({"type": "string", "format": "regex"}))),
        "tags-any": since("2.26", many(json!({"type": "string", "format": "regex"}))),
        "not-tags": since("2.26", many(json!({"type": "string", "format": "regex"}))),
        "not-tags-any": since("2.26", many(json!({"type": "string", "format": "regex"}))),
        "locked": since("2.73", texts),
    });
    properties.extend(more.as_object().cloned().unwrap_or_default());
    let (old, new) = (properties.clone(), properties);
    // Before 2.75 a key that nobody knows was passed over.
    let form = |properties: Map<String, Json>, others: bool| {
        json!({
            "type": "object", "properties": properties, "additionalProperties": others,
            "patternProperties": {"^_": many(json!({"type": "string"}))},
        })
    };
    json!({"allOf": [until("2.74", form(old, true)), since("2.75", form(new, false))]})
});

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(form: &Form, version: (u16, u16), body: Json) -> bool {
        form.at(Version(version.0, version.1)).check(&body).is_ok()
    }

    #[test]
    fn keys_come_and_go_with_versions() {
        let with = |key: &str, value: Json| {
            let mut server = json!({"name": "a", "flavorRef": "1", "networks": []});
            server[key] = value;
            json!({"server": server})
        };
        for (key, value, version, fine) in [
            ("description", json!("d"), (2, 18), false),
            ("description", json!("d"), (2, 19), true),
            ("personality", json!([]), (2, 56), true),
            ("personality", json!([]), (2, 57), false),
            ("networks", json!("none"), (2, 36), false),
            ("networks", json!("none"), (2, 37), true),
            ("hostname", json!("a.b"), (2, 90), false),
            ("hostname", json!("a.b"), (2, 94), true),
            ("tags", json!(["a"]), (2, 51), false),
            ("tags", json!(["a,b"]), (2, 52), false),
            ("min_count", json!("2"), (2, 1), true),
            ("min_count", json!(0), (2, 1), false),
        ] {
            assert_eq!(
                fits(&SERVER_CREATE, version, with(key, value.clone())),
                fine,
                "{key} {value} {version:?}"
            );
        }
        assert!(fits(&SERVER_CREATE, (2, 36), json!({"server": {"name": "a", "flavorRef": "1"}})));
        assert!(!fits(&SERVER_CREATE, (2, 37), json!({"server": {"name": "a", "flavorRef": "1"}})));
    }
}
