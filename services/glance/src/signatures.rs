//! Signed images: an image that says to be signed is taken only if its signature is good. The certificates are the key
//! manager's.

use crate::{Glance, model::Whole};
use base::{Context, Error, ErrorKind, Result};
use base64::{Engine, alphabet, engine};
use rsa::{Pss, RsaPublicKey, traits::PublicKeyParts};
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use x509_cert::{
    Certificate,
    der::{Decode, Encode},
    spki::DecodePublicKey,
};

const SIGNATURE: [&str; 4] = [
    "img_signature",
    "img_signature_hash_method",
    "img_signature_key_type",
    "img_signature_certificate_uuid",
];

/// Reads an image's bytes on their way in and says at the end whether they were signed.
pub struct Verifier {
    image_id: String,
    signature: Vec<u8>,
    hash: Hash,
    key: Key,
}

#[derive(Clone)]
enum Hash {
    Sha224(Sha224),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

enum Key {
    Rsa(RsaPublicKey),
    Dsa(dsa::VerifyingKey),
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
    P521(p521::ecdsa::VerifyingKey),
}

/// None: the image does not say all that a signature needs. `BadRequest`: it does, and nobody can verify it.
pub async fn verifier(glance: &Glance, cx: &Context, whole: &Whole) -> Result<Option<Verifier>> {
    let value = |name: &str| {
        let found = whole.properties.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    };
    let [Some(signature), Some(hash), Some(key_type), Some(certificate)] = SIGNATURE.map(value) else {
        return Ok(None);
    };
    let image_id = whole.image.id.as_str();
    let failed =
        |reason: String| failed(image_id, &format!("Signature verification for the image failed: {reason}."));
    let signature = decoded(signature)
        .ok_or_else(|| failed("The signature data was not properly encoded using base64".into()))?;
    let hash = Hash::named(hash).ok_or_else(|| failed(format!("Invalid signature hash method: {hash}")))?;
    if !["RSA-PSS", "DSA", "ECC_SECP521R1", "ECC_SECP384R1"].contains(&key_type) {
        return Err(failed(format!("Invalid signature key type: {key_type}")));
    }
    let der = glance.certificates.certificate(cx, certificate).await.map_err(|error| {
        let reason = match error.kind {
            ErrorKind::NotFound => format!("Certificate not found with ID: {certificate}"),
            ErrorKind::BadRequest => format!("Invalid certificate format: {}", error.message),
            _ => format!("Unable to retrieve certificate with ID: {certificate}"),
        };
        failed(reason).cause(error)
    })?;
    let not_made = || failed("Error occurred while creating the verifier".into());
    let key = Key::of(&der).ok_or_else(not_made)?;
    if key.kind() != key_type.split('_').next().unwrap_or_default() {
        return Err(failed(format!("Invalid public key type for signature key type: {key_type}")));
    }
    if signature.is_empty() {
        return Err(not_made());
    }
    Ok(Some(Verifier { image_id: image_id.into(), signature, hash, key }))
}

fn failed(image_id: &str, reason: &str) -> Error {
    Error::bad_request(format!("Signature verification failed for image {image_id}: {reason}"))
}

impl Verifier {
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.hash {
            Hash::Sha224(hash) => hash.update(bytes),
            Hash::Sha256(hash) => hash.update(bytes),
            Hash::Sha384(hash) => hash.update(bytes),
            Hash::Sha512(hash) => hash.update(bytes),
        }
    }

    /// `BadRequest`: these are not the bytes that were signed.
    pub fn verify(self) -> Result<()> {
        let digest = match self.hash.clone() {
            Hash::Sha224(hash) => hash.finalize().to_vec(),
            Hash::Sha256(hash) => hash.finalize().to_vec(),
            Hash::Sha384(hash) => hash.finalize().to_vec(),
            Hash::Sha512(hash) => hash.finalize().to_vec(),
        };
        match self.is_good(&digest) {
            true => Ok(()),
            false => Err(failed(&self.image_id, "Signature verification failed")),
        }
    }

    fn is_good(&self, digest: &[u8]) -> bool {
        use rsa::signature::hazmat::PrehashVerifier;
        let signature = self.signature.as_slice();
        match &self.key {
            Key::Rsa(key) => {
                self.padding(key).is_some_and(|padding| key.verify(padding, digest, signature).is_ok())
            }
            Key::Dsa(key) => dsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok()),
            Key::P256(key) => p256::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(&as_long_as(digest, 32), &signature).is_ok()),
            Key::P384(key) => p384::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(&as_long_as(digest, 48), &signature).is_ok()),
            Key::P521(key) => p521::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(&as_long_as(digest, 66), &signature).is_ok()),
        }
    }

    /// With the longest salt that there is room for, as upstream signs.
    fn padding(&self, key: &RsaPublicKey) -> Option<Pss> {
        let encoded_bytes = (key.n().bits() - 1).div_ceil(8);
        let salt = |hash_bytes: usize| encoded_bytes.checked_sub(hash_bytes + 2);
        Some(match &self.hash {
            Hash::Sha224(_) => Pss::new_with_salt::<rsa::sha2::Sha224>(salt(28)?),
            Hash::Sha256(_) => Pss::new_with_salt::<rsa::sha2::Sha256>(salt(32)?),
            Hash::Sha384(_) => Pss::new_with_salt::<rsa::sha2::Sha384>(salt(48)?),
            Hash::Sha512(_) => Pss::new_with_salt::<rsa::sha2::Sha512>(salt(64)?),
        })
    }
}

/// A hash that is shorter than the curve's numbers is the same number with zeros before it.
fn as_long_as(digest: &[u8], bytes: usize) -> Vec<u8> {
    let mut padded = vec![0; bytes.saturating_sub(digest.len())];
    padded.extend_from_slice(digest);
    padded
}

impl Hash {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "SHA-224" => Self::Sha224(Sha224::new()),
            "SHA-256" => Self::Sha256(Sha256::new()),
            "SHA-384" => Self::Sha384(Sha384::new()),
            "SHA-512" => Self::Sha512(Sha512::new()),
            _ => return None,
        })
    }
}

impl Key {
    /// A certificate's. None: it has one of a kind that nobody signs images with.
    fn of(certificate: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(certificate).ok()?;
        let key = certificate.tbs_certificate.subject_public_key_info.to_der().ok()?;
        let rsa = || RsaPublicKey::from_public_key_der(&key).ok().map(Self::Rsa);
        let dsa = || dsa::VerifyingKey::from_public_key_der(&key).ok().map(Self::Dsa);
        let p256 = || p256::PublicKey::from_public_key_der(&key).ok().map(|key| Self::P256(key.into()));
        let p384 = || p384::PublicKey::from_public_key_der(&key).ok().map(|key| Self::P384(key.into()));
        let p521 = || {
            let point = p521::PublicKey::from_public_key_der(&key).ok()?;
            p521::ecdsa::VerifyingKey::from_affine(*point.as_affine()).ok().map(Self::P521)
        };
        rsa().or_else(dsa).or_else(p256).or_else(p384).or_else(p521)
    }

    /// As the types of keys begin.
    fn kind(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RSA-PSS",
            Self::Dsa(_) => "DSA",
            Self::P256(_) | Self::P384(_) | Self::P521(_) => "ECC",
        }
    }
}

/// As Python reads base64: what is not of its alphabet is passed over.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let lenient = engine::GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    let is_of_it = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    let text: String = text.chars().filter(is_of_it).collect();
    engine::GeneralPurpose::new(&alphabet::STANDARD, lenient).decode(text).ok()
}
