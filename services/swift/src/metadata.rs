//! Which headers of a request are kept with an account, a container or an object.

use crate::{
    Options,
    answer::Outcome,
    call::Call,
    constraints::{KEPT_HEADERS, check_overall},
    model::Metadata,
};

/// Only owners see and set these.
pub const OWNERS: &[&str] = &[
    "x-container-read",
    "x-container-write",
    "x-container-sync-key",
    "x-container-sync-to",
    "x-account-meta-temp-url-key",
    "x-account-meta-temp-url-key-2",
    "x-container-meta-temp-url-key",
    "x-container-meta-temp-url-key-2",
    "x-account-access-control",
];

/// What containers keep besides their metadata.
const OF_CONTAINERS: &[&str] = &[
    "x-container-read",
    "x-container-write",
    "x-container-sync-key",
    "x-container-sync-to",
    "x-versions-location",
    "x-history-location",
    "x-versions-enabled",
];

/// Lays a request's headers over what is known: an empty value and `X-Remove-…` take away.
pub fn laid_over(
    options: &Options,
    known: &Metadata,
    call: &Call,
    kind: &str,
    owner: bool,
) -> Outcome<Metadata> {
    let prefix = format!("x-{kind}-meta-");
    let is_kept = |name: &str| {
        let named = kind == "container" && OF_CONTAINERS.contains(&name);
        (named || name.len() > prefix.len() && name.starts_with(&prefix))
            && (owner || !OWNERS.contains(&name))
    };
    let mut metadata = known.clone();
    for (name, value) in &call.headers {
        let name = name.as_str();
        if is_kept(name) {
            let value = String::from_utf8_lossy(value.as_bytes()).trim().to_string();
            match value.is_empty() {
                true => metadata.remove(name),
                false => metadata.insert(name.into(), value),
            };
        }
    }
    for name in call.headers.keys() {
        if let Some(rest) = name.as_str().strip_prefix("x-remove-") {
            let name = format!("x-{rest}");
            if is_kept(&name) {
                metadata.remove(&name);
            }
        }
    }
    let told = metadata.iter().filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?, value)));
    let (count, size) =
        told.fold((0, 0), |(count, size), (name, value)| (count + 1, size + name.len() + value.len()));
    check_overall(options, count, size)?;
    Ok(metadata)
}

/// What an object keeps of the headers it is written with.
pub fn of_object(call: &Call) -> Metadata {
    let mut metadata = Metadata::new();
    for (name, value) in &call.headers {
        let name = name.as_str();
        if name.starts_with("x-object-meta-") || KEPT_HEADERS.contains(&name) {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            // A name without a value is metadata, too.
            if !value.is_empty() || name.starts_with("x-object-meta-") {
                metadata.insert(name.into(), value);
            }
        }
    }
    // As `delete_at` has it, in seconds.
    metadata.remove("x-delete-at");
    metadata
}

/// Sets what may be told as headers of an answer.
pub fn tell(answer: &mut crate::answer::Answer, metadata: &Metadata, owner: bool) {
    for (name, value) in metadata {
        let hidden = name.contains("-sysmeta-") || (!owner && OWNERS.contains(&name.as_str()));
        if !hidden {
            answer.set(name, value);
        }
    }
}

/// What a POST does not take from an object.
pub fn stays(name: &str) -> bool {
    name.contains("-sysmeta-") || name == "x-static-large-object"
}
