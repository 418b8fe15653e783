//! XML signatures of SAML messages: whether an element, as a whole, is what the holder of a known key signed. Of what
//! the standard allows only that is taken which SAML prescribes: one enveloped signature over its parent.

use super::{SIGNATURE, canonical, only_child, text_of};
use base64::{Engine, engine::general_purpose::STANDARD};
use roxmltree::Node;
use rsa::{
    RsaPublicKey, pkcs1v15,
    pkcs8::DecodePublicKey,
    sha2::{Sha256, Sha512},
    signature::Verifier,
};
use sha2::Digest;
use x509_cert::{
    Certificate,
    der::{Decode, Encode},
};

const EXCLUSIVE: &str = "http://www.w3.org/2001/10/xml-exc-c14n#";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";
const SHA1: &str = "http://www.w3.org/2000/09/xmldsig#sha1";
const SHA256: &str = "http://www.w3.org/2001/04/xmlenc#sha256";
const SHA512: &str = "http://www.w3.org/2001/04/xmlenc#sha512";
const RSA_SHA1: &str = "http://www.w3.org/2000/09/xmldsig#rsa-sha1";
const RSA_SHA256: &str = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256";
const RSA_SHA512: &str = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512";
const ECDSA_SHA256: &str = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256";

/// A key that is believed.
pub enum Key {
    Rsa(RsaPublicKey),
    P256(p256::ecdsa::VerifyingKey),
}

impl Key {
    /// Of a certificate in base64, as metadata holds it. Only its key counts: metadata says who holds it.
    pub fn of_certificate(base64: &str) -> Result<Self, String> {
        let text: String = base64.split_whitespace().collect();
        let bytes = STANDARD.decode(text).map_err(|e| e.to_string())?;
        let certificate = Certificate::from_der(&bytes).map_err(|e| e.to_string())?;
        let key = certificate.tbs_certificate.subject_public_key_info.to_der().map_err(|e| e.to_string())?;
        if let Ok(key) = RsaPublicKey::from_public_key_der(&key) {
            return Ok(Self::Rsa(key));
        }
        let key = p256::ecdsa::VerifyingKey::from_public_key_der(&key);
        key.map(Self::P256).map_err(|_| "a certificate with neither an RSA nor a P-256 key".into())
    }

    fn signed(&self, method: &str, text: &[u8], value: &[u8]) -> bool {
        match self {
            Self::Rsa(key) => {
                let Ok(value) = pkcs1v15::Signature::try_from(value) else { return false };
                let key = key.clone();
                match method {
                    RSA_SHA256 => pkcs1v15::VerifyingKey::<Sha256>::new(key).verify(text, &value).is_ok(),
                    RSA_SHA512 => pkcs1v15::VerifyingKey::<Sha512>::new(key).verify(text, &value).is_ok(),
                    RSA_SHA1 => is_signed_sha1(&key, text, value),
                    _ => false,
                }
            }
            Self::P256(key) => {
                let value = p256::ecdsa::Signature::from_slice(value);
                method == ECDSA_SHA256 && value.is_ok_and(|value| key.verify(text, &value).is_ok())
            }
        }
    }
}

/// The digest is made beforehand, for the two crates know different generations of hashes.
fn is_signed_sha1(key: &RsaPublicKey, text: &[u8], value: pkcs1v15::Signature) -> bool {
    use rsa::signature::SignatureEncoding;
    const SHA1_INFO: &[u8] =
        &[0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14];
    let scheme = rsa::Pkcs1v15Sign { hash_len: Some(20), prefix: SHA1_INFO.into() };
    key.verify(scheme, &sha1::Sha1::digest(text), &value.to_bytes()).is_ok()
}

/// Whether the element carries a signature of its own.
pub fn has_own(element: Node) -> bool {
    element.children().any(|child| child.has_tag_name((SIGNATURE, "Signature")))
}

/// An error unless one of the keys signed the element as it stands here.
pub fn check(element: Node, keys: &[Key], with_sha1: bool) -> Result<(), String> {
    let signature = only_child(element, SIGNATURE, "Signature")?;
    let info = only_child(signature, SIGNATURE, "SignedInfo")?;
    let reference = only_child(info, SIGNATURE, "Reference")?;
    check_names(element, reference)?;
    let shown = transforms(reference)?;
    let digest_method = algorithm(only_child(reference, SIGNATURE, "DigestMethod")?);
    let value = decoded(only_child(reference, SIGNATURE, "DigestValue")?)?;
    let text = canonical::text(element, Some(signature), &shown)?;
    let made = match digest_method {
        SHA256 => sha2::Sha256::digest(text).to_vec(),
        SHA512 => sha2::Sha512::digest(text).to_vec(),
        SHA1 if with_sha1 => sha1::Sha1::digest(text).to_vec(),
        other => return Err(format!("a digest that is not taken: {other}")),
    };
    if made != value {
        return Err("it is not what was signed".into());
    }
    let method = algorithm(only_child(info, SIGNATURE, "SignatureMethod")?);
    if method == RSA_SHA1 && !with_sha1 {
        return Err("signed with SHA-1".into());
    }
    let shown = prefixes(only_child(info, SIGNATURE, "CanonicalizationMethod")?)?;
    let text = canonical::text(info, None, &shown)?;
    let value = decoded(only_child(signature, SIGNATURE, "SignatureValue")?)?;
    match keys.iter().any(|key| key.signed(method, text.as_bytes(), &value)) {
        true => Ok(()),
        false => Err("signed by nobody that is known".into()),
    }
}

/// The signature must mean its parent, and no other element may go by its name.
fn check_names(element: Node, reference: Node) -> Result<(), String> {
    let id = element.attribute("ID").filter(|id| !id.is_empty()).ok_or("no ID")?;
    if reference.attribute("URI").and_then(|uri| uri.strip_prefix('#')) != Some(id) {
        return Err("a signature of something else".into());
    }
    let is_id = |name: &str| name.eq_ignore_ascii_case("id");
    let bears = |node: &Node| node.attributes().any(|one| is_id(one.name()) && one.value() == id);
    match element.document().descendants().filter(bears).count() {
        1 => Ok(()),
        _ => Err("two elements with one ID".into()),
    }
}

/// Which prefixes the canonical form shows. The enveloped signature is left out, then the canonical form is made; nothing else is done to what was signed.
fn transforms(reference: Node) -> Result<Vec<String>, String> {
    let all = only_child(reference, SIGNATURE, "Transforms")?;
    let steps: Vec<Node> = all.children().filter(Node::is_element).collect();
    match steps.as_slice() {
        [first, second] if algorithm(*first) == ENVELOPED => prefixes(*second),
        _ => Err("transforms that are not taken".into()),
    }
}

fn prefixes(method: Node) -> Result<Vec<String>, String> {
    if algorithm(method) != EXCLUSIVE {
        return Err(format!("a canonical form that is not taken: {}", algorithm(method)));
    }
    let listed = method.children().find(|child| child.has_tag_name((EXCLUSIVE, "InclusiveNamespaces")));
    let listed = listed.and_then(|node| node.attribute("PrefixList")).unwrap_or_default();
    let prefix = |word: &str| if word == "#default" { String::new() } else { word.to_string() };
    Ok(listed.split_whitespace().map(prefix).collect())
}

fn algorithm<'a>(node: Node<'a, '_>) -> &'a str {
    node.attribute("Algorithm").unwrap_or_default()
}

fn decoded(node: Node) -> Result<Vec<u8>, String> {
    let text: String = text_of(node)?.split_whitespace().collect();
    STANDARD.decode(text).map_err(|e| e.to_string())
}
