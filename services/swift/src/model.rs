//! Accounts, containers and objects as rows. Names are bytes, so that both databases sort them as swift does.

use base::Timestamp;
use db::{AsJson, Resource, Table};
use std::collections::BTreeMap;

pub const TABLES: &[&Table] = &[Account::TABLE, Container::TABLE, Object::TABLE];

/// Headers that are kept, by their names in small letters.
pub type Metadata = BTreeMap<String, String>;

/// A project's part of the store. It comes to be with its first container or metadata.
#[derive(Clone, Debug, Resource)]
#[resource(table = "accounts")]
pub struct Account {
    #[field(key)]
    pub name: String,
    pub created_at: Timestamp,
    pub metadata: AsJson<Metadata>,
    pub containers: i64,
    pub objects: i64,
    pub bytes: i64,
    /// Gone, and not to be used again.
    pub deleted: bool,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "containers", unique = "account, name")]
pub struct Container {
    #[field(key)]
    pub id: String,
    pub account: String,
    pub name: Vec<u8>,
    pub created_at: Timestamp,
    pub put_at: Timestamp,
    pub metadata: AsJson<Metadata>,
    pub objects: i64,
    pub bytes: i64,
}

/// An object, or a former version of one.
#[derive(Clone, Debug, Resource)]
#[resource(table = "objects", index = "container_id, name, past, slot", index = "delete_at", index = "file")]
pub struct Object {
    #[field(key)]
    pub container_id: String,
    /// False: what the name stands for now.
    #[field(key)]
    pub past: bool,
    #[field(key)]
    pub name: Vec<u8>,
    /// Of what is past: its version, negative, so that the newest comes first. 0: what is now.
    #[field(key)]
    pub slot: i64,
    /// Of what was written while its container kept versions.
    pub version: Option<Timestamp>,
    /// Where a version says that there was nothing.
    pub marker: bool,
    pub written_at: Timestamp,
    pub size: i64,
    pub etag: String,
    pub content_type: String,
    /// What is told with the object: its metadata, how it is encoded, what it links to.
    pub metadata: AsJson<Metadata>,
    /// Its bytes; none when there are none.
    pub file: Option<String>,
    /// Seconds since 1970.
    pub delete_at: Option<i64>,
    /// Of what is made of segments: all their bytes, and the hash of their hashes.
    pub large_size: Option<i64>,
    pub large_etag: Option<String>,
}

impl Container {
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }

    pub fn meta(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }
}

impl Object {
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }

    pub fn meta(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    pub fn is_large(&self) -> bool {
        self.large_size.is_some()
    }
}

/// `1761234567.12345`, as swift writes times everywhere but in lists.
pub fn stamp(time: Timestamp) -> String {
    format!("{:010}.{:05}", time.0.div_euclid(1_000_000), time.0.rem_euclid(1_000_000) / 10)
}

/// What [`stamp`] wrote.
pub fn parse_stamp(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) || fraction.len() > 6 {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    let fraction: i64 = format!("{fraction:0<6}").parse().ok()?;
    Some(Timestamp(seconds.checked_mul(1_000_000)?.checked_add(fraction)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps() {
        let time = Timestamp(1_761_234_567_123_450);
        assert_eq!(stamp(time), "1761234567.12345");
        assert_eq!(parse_stamp("1761234567.12345"), Some(time));
        assert_eq!(parse_stamp("1761234567"), Some(Timestamp(1_761_234_567_000_000)));
        for wrong in ["", ".", "x", "1.", "1.x", "-1", "1.1234567", "99999999999999999999"] {
            assert_eq!(parse_stamp(wrong), None, "{wrong}");
        }
    }
}
