//! The same server in EC2's form: a tree of texts that is read path by path.

use super::content::{About, Found, text_of};
use base::Json;
use serde_json::json;
use std::collections::BTreeMap;

const VERSIONS: &[&str] =
    &["1.0", LOCAL_NAMES, "2007-03-01", TYPE, "2007-10-10", DEVICES, PLACEMENT, ACTION, "2009-04-04"];
const LOCAL_NAMES: &str = "2007-01-19";
const TYPE: &str = "2007-08-29";
const DEVICES: &str = "2007-12-15";
const PLACEMENT: &str = "2008-02-01";
const ACTION: &str = "2008-09-01";

/// What is listed in place of a branch's own name.
const NAME: &str = "_name";

pub fn versions() -> Vec<&'static str> {
    VERSIONS.iter().copied().chain(["latest"]).collect()
}

/// What is at `version/meta-data/…` or `version/user-data`.
pub fn lookup(about: &About, path: &[&str]) -> Option<Found> {
    let Some((version, rest)) = path.split_first() else { return Some(Found::Text(versions().join("\n"))) };
    let version = dated(version)?;
    match rest {
        [] => {
            let user_data = about.instance.user_data.as_ref().map(|_| "user-data");
            Some(Found::Text(
                [Some("meta-data"), user_data].into_iter().flatten().collect::<Vec<_>>().join("\n"),
            ))
        }
        ["user-data"] => about.user_data().map(Found::Bytes),
        ["meta-data", rest @ ..] => {
            let mut node = &meta_data(about, version);
            for (depth, part) in rest.iter().enumerate() {
                node = match node {
                    Json::Object(branch) => branch.get(*part).filter(|_| *part != NAME)?,
                    // An item of a list is itself, at the end of the path.
                    Json::Array(items) if depth + 1 == rest.len() => {
                        items.iter().find(|item| item.as_str() == Some(*part))?
                    }
                    _ => return None,
                };
            }
            Some(Found::Text(printed(node)))
        }
        _ => None,
    }
}

/// The config drive's files by path.
pub fn drive_files(about: &About) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for version in versions() {
        let Some(known) = dated(version) else { continue };
        let mut data = meta_data(about, known);
        if let Some(key) = data.pointer_mut("/public-keys/0").and_then(Json::as_object_mut) {
            key.remove(NAME);
        }
        files.insert(format!("ec2/{version}/meta-data.json"), data.to_string());
        if let Some(bytes) = about.user_data() {
            files.insert(format!("ec2/{version}/user-data"), text_of(&bytes));
        }
    }
    files
}

fn dated(version: &str) -> Option<&'static str> {
    match version {
        "latest" => VERSIONS.last().copied(),
        version => VERSIONS.iter().find(|known| **known == version).copied(),
    }
}

fn meta_data(about: &About, version: &str) -> Json {
    let instance = &about.instance;
    let since = |first: &str| {
        let place = |wanted: &str| VERSIONS.iter().position(|known| *known == wanted);
        place(version) >= place(first)
    };
    let addresses = || instance.nics.iter().flat_map(|nic| &nic.port.fixed_ips);
    let fixed = addresses().map(|ip| ip.address.as_str()).find(|address| address.contains('.'));
    let floating = addresses().flat_map(|ip| &ip.floating_ips).next();
    // EC2's ids have eight digits: the server's number, and the beginning of the image's id.
    let image: String = instance.image_ref.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    let mut data = json!({
        "ami-id": format!("ami-{image:0>8}"),
        "ami-launch-index": instance.launch_index,
        "ami-manifest-path": "FIXME",
        "instance-id": format!("i-{:08x}", instance.number),
        "hostname": about.hostname,
        "local-ipv4": fixed.unwrap_or_default(),
        "reservation-id": instance.reservation_id,
        "security-groups": instance.security_groups,
    });
    if let (Some(name), Some(key)) = (&instance.key_name, &instance.public_key) {
        data["public-keys"] = json!({"0": {NAME: format!("0={name}"), "openssh-key": key}});
    }
    if since(LOCAL_NAMES) {
        data["local-hostname"] = about.hostname.clone().into();
        data["public-hostname"] = about.hostname.clone().into();
        data["public-ipv4"] = floating.cloned().unwrap_or_default().into();
    }
    if since(TYPE) {
        data["instance-type"] = instance.flavor.name.clone().into();
    }
    if since(DEVICES) {
        data["block-device-mapping"] = devices(about);
    }
    if since(PLACEMENT) {
        data["placement"] = json!({"availability-zone": instance.availability_zone});
    }
    if since(ACTION) {
        data["instance-action"] = "none".into();
    }
    data
}

fn devices(about: &About) -> Json {
    let root = about.instance.root_device_name.as_deref().unwrap_or("/dev/sda1");
    let mut mapping = json!({"ami": root.trim_start_matches("/dev/"), "root": root});
    let volumes = about.devices.iter().filter(|device| device.volume_id.is_some());
    for (n, name) in volumes.filter_map(|device| device.device_name.as_deref()).enumerate() {
        mapping[format!("ebs{n}")] = name.into();
    }
    mapping
}

/// A branch lists its names, those of branches with a slash; a leaf is its text.
fn printed(node: &Json) -> String {
    match node {
        Json::Object(branch) => {
            let mut names: Vec<_> = branch.iter().filter(|(name, _)| *name != NAME).collect();
            names.sort_by_key(|(name, _)| name.as_str());
            let line = |(name, node): &(&String, &Json)| match (node, node.get(NAME)) {
                (Json::Object(_), Some(shown)) => shown.as_str().unwrap_or_default().to_string(),
                (Json::Object(_), None) => format!("{name}/"),
                _ => (*name).clone(),
            };
            names.iter().map(line).collect::<Vec<_>>().join("\n")
        }
        Json::Array(items) => items.iter().map(printed).collect::<Vec<_>>().join("\n"),
        Json::String(text) => text.clone(),
        Json::Null => "None".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_list_their_names() {
        let tree = json!({"b": {"x": 1}, "a": "text", "c": {NAME: "0=key", "openssh-key": "k"}});
        assert_eq!(printed(&tree), "a\nb/\n0=key");
        assert_eq!(printed(&tree["c"]), "openssh-key");
        assert_eq!(printed(&json!(["default", "web"])), "default\nweb");
        assert_eq!(printed(&json!(0)), "0");
    }
}
