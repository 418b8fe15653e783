//! Signed images: an image that says to be signed is taken only if its signature is good. The certificates are the key
//! manager's; without one nothing is verified, and so no signed image is taken.

use crate::model::Whole;
use base::{Error, Result};

const SIGNATURE: [&str; 4] = [
    "img_signature",
    "img_signature_hash_method",
    "img_signature_key_type",
    "img_signature_certificate_uuid",
];

/// Refuses the bytes of an image that has all properties of a signature, for nobody could verify it.
pub fn check(whole: &Whole) -> Result<()> {
    let value = |name: &str| {
        let found = whole.properties.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    };
    if !SIGNATURE.iter().all(|name| value(name).is_some()) {
        return Ok(());
    }
    let id = value("img_signature_certificate_uuid").unwrap_or_default();
    let sentence = format!(
        "Signature verification failed for image {}: Signature verification for the image failed: Unable to retrieve certificate with ID: {id}.",
        whole.image.id
    );
    Err(Error::bad_request(sentence))
}
