//! Ids as OpenStack writes them: dashed UUIDs (nova, neutron, glance, cinder) and bare hex (keystone).

use uuid::Uuid;

/// A random id with dashes, `0e8a7f6c-…`.
pub fn uuid() -> String {
    Uuid::new_v4().to_string()
}

/// A random id without dashes, 32 hex digits; also the tail of a request id's source.
pub fn hex() -> String {
    Uuid::new_v4().simple().to_string()
}

/// A request id, `req-` and a UUID.
pub fn request() -> String {
    format!("req-{}", uuid())
}

/// An id that follows from its parts, so that a repeated step makes the same object again.
pub fn derived(parts: &[&str]) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, parts.join("\u{1f}").as_bytes()).to_string()
}

/// Whether a string is a UUID in the forms OpenStack takes: dashed or 32 hex digits, either case.
pub fn is_uuid(text: &str) -> bool {
    matches!(text.len(), 32 | 36) && Uuid::try_parse(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_repeat_and_differ() {
        assert_eq!(derived(&["a", "b"]), derived(&["a", "b"]));
        assert_ne!(derived(&["a", "b"]), derived(&["ab", ""]));
    }

    #[test]
    fn uuid_forms() {
        assert!(is_uuid(&uuid()) && is_uuid(&hex()));
        assert!(!is_uuid("{0e8a7f6c-0000-0000-0000-000000000000}") && !is_uuid("x") && !is_uuid(""));
    }
}
