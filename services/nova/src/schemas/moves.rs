//! The forms of what makes images of servers, moves them, puts them away and rescues them.

use super::{Form, boolean, disk_config, flavor_ref, fqdn, metadata, name, since, until};
use base::Json;
use serde_json::json;

/// An action whose body says nothing, whatever it says.
fn bare(action: &str) -> Json {
    json!({"type": "object", "properties": {action: {}}, "required": [action], "additionalProperties": false})
}

/// An action with an object that has these properties.
fn action(name: &str, kind: Json, properties: Json, required: &[&str]) -> Json {
    json!({
        "type": "object",
        "properties": {name: {
            "type": kind, "properties": properties, "required": required, "additionalProperties": false,
        }},
        "required": [name],
        "additionalProperties": false,
    })
}

fn nullable_host() -> Json {
    let mut host = fqdn();
    host["type"] = json!(["string", "null"]);
    host
}

fn block_migration() -> Json {
    let mut auto = boolean();
    if let Some(words) = auto["enum"].as_array_mut() {
        words.push("auto".into());
    }
    json!([until("2.24", boolean()), since("2.25", auto)])
}

pub static CREATE_IMAGE: Form = Form::new(|| {
    action("createImage", json!("object"), json!({"name": name(), "metadata": metadata()}), &["name"])
});

pub static CREATE_BACKUP: Form = Form::new(|| {
    let properties = json!({
        "name": name(),
        "backup_type": {"type": "string"},
        "rotation": {"type": ["integer", "string"], "pattern": "^[0-9]*$", "minimum": 0, "minLength": 1},
        "metadata": metadata(),
    });
    action("createBackup", json!("object"), properties, &["name", "backup_type", "rotation"])
});

pub static RESIZE: Form = Form::new(|| {
    let properties = json!({"flavorRef": flavor_ref(), "OS-DCF:diskConfig": disk_config()});
    action("resize", json!("object"), properties, &["flavorRef"])
});

pub static CONFIRM_RESIZE: Form = Form::new(|| bare("confirmResize"));

pub static REVERT_RESIZE: Form = Form::new(|| bare("revertResize"));

pub static MIGRATE: Form =
    Form::new(|| action("migrate", json!(["object", "null"]), json!({"host": nullable_host()}), &[]));

/// The same action with one more thing that must be said until a version.
fn action_until(name: &str, version: &str, extra: &str, properties: Json, required: &[&str]) -> Json {
    let all: Vec<&str> = required.iter().copied().chain([extra]).collect();
    let mut form = action(name, json!("object"), properties.clone(), required);
    let new = form["properties"][name].take();
    let old = action(name, json!("object"), properties, &all)["properties"][name].take();
    form["properties"][name] = json!([until(version, old), new]);
    form
}

pub static MIGRATE_LIVE: Form = Form::new(|| {
    let properties = json!({
        "block_migration": block_migration(),
        "disk_over_commit": until("2.24", boolean()),
        "host": nullable_host(),
        "force": until("2.67", since("2.30", boolean())),
    });
    action_until("os-migrateLive", "2.24", "disk_over_commit", properties, &["block_migration", "host"])
});

pub static EVACUATE: Form = Form::new(|| {
    let properties = json!({
        "host": fqdn(),
        "onSharedStorage": until("2.13", boolean()),
        "adminPass": {"type": "string"},
        "force": until("2.67", since("2.29", boolean())),
    });
    action_until("evacuate", "2.13", "onSharedStorage", properties, &[])
});

pub static SHELVE: Form = Form::new(|| bare("shelve"));

pub static SHELVE_OFFLOAD: Form = Form::new(|| bare("shelveOffload"));

pub static UNSHELVE: Form = Form::new(|| {
    let one = |properties: Json, required: &[&str]| {
        json!({
            "type": ["object", "null"], "properties": properties, "required": required,
            "additionalProperties": false,
        })
    };
    let to_zone = one(json!({"availability_zone": name()}), &["availability_zone"]);
    let to_host = json!({"availability_zone": {"type": ["string", "null"]}, "host": {"type": "string"}});
    json!({
        "type": "object",
        "properties": {"unshelve": [
            until("2.76", json!({})),
            until("2.90", since("2.77", to_zone)),
            since("2.91", one(to_host, &[])),
        ]},
        "required": ["unshelve"],
        "additionalProperties": false,
    })
});

pub static RESCUE: Form = Form::new(|| {
    let properties = json!({
        "adminPass": {"type": "string"},
        "rescue_image_ref": {"type": "string", "format": "uuid"},
    });
    action("rescue", json!(["object", "null"]), properties, &[])
});

pub static UNRESCUE: Form = Form::new(|| bare("unrescue"));

pub static FORCE_COMPLETE: Form = Form::new(|| {
    json!({"type": "object", "properties": {"force_complete": {"type": "null"}}, "required": ["force_complete"],
           "additionalProperties": false})
});
