//! OAuth 1 signatures (RFC 5849): what a signed request says in its header, and whether the signature is right.

use crate::signature::{hmac_sha1, hmac_sha256, same};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::collections::HashMap;

/// A header of more parameters than these was not made by a client.
const PARAMETERS_MAX: usize = 32;

/// The parameters of an `Authorization: OAuth …` header, decoded.
#[derive(Debug, Default)]
pub struct Signed(HashMap<String, String>);

impl Signed {
    /// None where there is no such header, or it cannot be read.
    pub fn parse(header: Option<&str>) -> Option<Self> {
        let (scheme, rest) = header?.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("oauth") {
            return None;
        }
        let mut parameters = HashMap::new();
        for part in rest.split(',').take(PARAMETERS_MAX) {
            let (name, value) = part.trim().split_once('=')?;
            let value = value.trim().trim_matches('"');
            if parameters.insert(decode(name), decode(value)).is_some() {
                return None;
            }
        }
        Some(Self(parameters))
    }

    /// An empty value is none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The first of the parameters that every signed request has and this one lacks.
    pub fn is_complete(&self) -> bool {
        ["oauth_consumer_key", "oauth_nonce", "oauth_timestamp", "oauth_signature_method", "oauth_signature"]
            .iter()
            .all(|name| self.get(name).is_some())
    }

    /// Whether the request was signed with these secrets. `query` is the URL's, decoded.
    pub fn verify(
        &self,
        method: &str,
        url: &str,
        query: &[(String, String)],
        consumer_secret: &str,
        token_secret: &str,
    ) -> bool {
        let Some(signature) = self.get("oauth_signature") else { return false };
        let key = format!("{}&{}", encode(consumer_secret), encode(token_secret));
        let text = self.base_string(method, url, query);
        let expected = match self.get("oauth_signature_method") {
            Some("HMAC-SHA1") => STANDARD.encode(hmac_sha1(key.as_bytes(), text.as_bytes())),
            Some("HMAC-SHA256") => STANDARD.encode(hmac_sha256(key.as_bytes(), text.as_bytes())),
            // PLAINTEXT would hand the secrets to whoever listens; RSA keys are not kept here.
            _ => return false,
        };
        same(&expected, signature)
    }

    fn base_string(&self, method: &str, url: &str, query: &[(String, String)]) -> String {
        let own = self.0.iter().filter(|(name, _)| !["oauth_signature", "realm"].contains(&name.as_str()));
        let mut pairs: Vec<(String, String)> = own
            .chain(query.iter().map(|(name, value)| (name, value)))
            .map(|(name, value)| (encode(name), encode(value)))
            .collect();
        pairs.sort();
        let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{}&{}&{}", method.to_uppercase(), encode(&plain_url(url)), encode(&pairs.join("&")))
    }
}

/// Scheme and host in small letters, no port where it is the usual one.
fn plain_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_string() };
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let (scheme, host) = (scheme.to_lowercase(), host.to_lowercase());
    let usual = if scheme == "https" { ":443" } else { ":80" };
    format!("{scheme}://{}{path}", host.strip_suffix(usual).unwrap_or(&host))
}

/// All but letters, digits and `-._~`, as the RFC has it.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "OAuth realm=\"Photos\", oauth_consumer_key=\"dpf43f3p2l4k3l03\", \
        oauth_token=\"nnch734d00sl2jdk\", oauth_signature_method=\"HMAC-SHA1\", oauth_timestamp=\"1191242096\", \
        oauth_nonce=\"kllo9940pd9333jh\", oauth_version=\"1.0\", oauth_signature=\"tR3%2BTy81lMeYAr%2FFid0kMTYa%2FWM%3D\"";

    fn query() -> Vec<(String, String)> {
        vec![("file".into(), "vacation.jpg".into()), ("size".into(), "original".into())]
    }

    /// The well-known example of the OAuth Core 1.0 specification.
    #[test]
    fn the_specification_s_example_is_right() {
        let signed = Signed::parse(Some(HEADER)).unwrap();
        let url = "http://photos.example.net/photos";
        assert!(signed.verify("GET", url, &query(), "kd94hf93k423kf44", "pfkkdhi9sl3r4s00"));
        assert!(signed.verify(
            "get",
            "HTTP://Photos.Example.net:80/photos",
            &query(),
            "kd94hf93k423kf44",
            "pfkkdhi9sl3r4s00"
        ));
    }

    #[test]
    fn anything_else_is_wrong() {
        let signed = Signed::parse(Some(HEADER)).unwrap();
        let url = "http://photos.example.net/photos";
        for (method, url, query, consumer, token) in [
            ("POST", url, query(), "kd94hf93k423kf44", "pfkkdhi9sl3r4s00"),
            ("GET", "http://other.example.net/photos", query(), "kd94hf93k423kf44", "pfkkdhi9sl3r4s00"),
            ("GET", url, Vec::new(), "kd94hf93k423kf44", "pfkkdhi9sl3r4s00"),
            ("GET", url, query(), "x", "pfkkdhi9sl3r4s00"),
            ("GET", url, query(), "kd94hf93k423kf44", ""),
        ] {
            assert!(!signed.verify(method, url, &query, consumer, token));
        }
        let plain =
            HEADER.replace("HMAC-SHA1", "PLAINTEXT").replace("tR3%2BTy81lMeYAr%2FFid0kMTYa%2FWM%3D", "a%26b");
        assert!(!Signed::parse(Some(&plain)).unwrap().verify("GET", url, &query(), "a", "b"));
    }

    #[test]
    fn other_headers_are_not_read() {
        for header in [None, Some("Basic x"), Some("OAuth x"), Some("OAuth a=\"1\", a=\"2\""), Some("")] {
            assert!(Signed::parse(header).is_none(), "{header:?}");
        }
    }
}
