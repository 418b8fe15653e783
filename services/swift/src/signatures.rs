//! Signed requests: keys of an account or a container, and the hashes made with them.

use crate::{auth::Info, files::hex, model::Metadata};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Account,
    Container,
}

/// The keys that count at a place.
pub fn keys(info: &Info) -> Vec<(String, Scope)> {
    let of = |metadata: &Metadata, kind: &str, scope| {
        let names = ["temp-url-key", "temp-url-key-2"].map(|name| format!("x-{kind}-meta-{name}"));
        let keys = names.iter().filter_map(|name| metadata.get(name).filter(|key| !key.is_empty()));
        keys.map(|key| (key.clone(), scope)).collect::<Vec<_>>()
    };
    let mut keys = info.account.as_ref().map_or(Vec::new(), |a| of(&a.metadata, "account", Scope::Account));
    keys.extend(info.container.iter().flat_map(|c| of(&c.metadata, "container", Scope::Container)));
    keys
}

/// A signature as clients write it: hexadecimal, or `sha256:` and base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub digest: &'static str,
    hex: String,
}

impl Signature {
    pub fn parse(text: &str) -> Option<Self> {
        const BY_LENGTH: [(&str, usize); 3] = [("sha1", 40), ("sha256", 64), ("sha512", 128)];
        if let Some((name, encoded)) = text.split_once(':') {
            let (digest, length) = BY_LENGTH.into_iter().find(|(known, _)| *known == name)?;
            let bytes = match encoded.contains(['-', '_']) {
                true => URL_SAFE.decode(padded(encoded)),
                false => STANDARD.decode(padded(encoded)),
            };
            let hex = hex(&bytes.ok()?);
            return (hex.len() == length).then_some(Self { digest, hex });
        }
        let (digest, _) = BY_LENGTH.into_iter().find(|(_, length)| *length == text.len())?;
        Some(Self { digest, hex: text.to_lowercase() })
    }

    /// Whether it is that of the message with this key. Takes as long whatever is wrong.
    pub fn is_of(&self, key: &str, message: &str) -> bool {
        let made = match self.digest {
            "sha1" => made::<Hmac<Sha1>>(key, message),
            "sha256" => made::<Hmac<Sha256>>(key, message),
            _ => made::<Hmac<Sha512>>(key, message),
        };
        made.is_some_and(|made| {
            let differences = made.bytes().zip(self.hex.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
            made.len() == self.hex.len() && differences == 0
        })
    }
}

fn padded(text: &str) -> String {
    let bare = text.trim_end_matches('=');
    format!("{bare}{}", "=".repeat((4 - bare.len() % 4) % 4))
}

fn made<M: Mac + KeyInit>(key: &str, message: &str) -> Option<String> {
    let mut mac = <M as KeyInit>::new_from_slice(key.as_bytes()).ok()?;
    mac.update(message.as_bytes());
    Some(hex(&mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures() {
        // RFC 2202 and RFC 4231, the second test of each.
        let (key, message) = ("Jefe", "what do ya want for nothing?");
        let sha1 = "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79";
        let sha256 = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        for text in [
            sha1,
            sha256,
            &sha1.to_uppercase(),
            "sha1:7/zfauXrL6LSdBbV8YTfnCWafHk=",
            "sha1:7_zfauXrL6LSdBbV8YTfnCWafHk",
        ] {
            let signature = Signature::parse(text).unwrap();
            assert!(signature.is_of(key, message), "{text}");
            assert!(!signature.is_of(key, "something else") && !signature.is_of("other", message));
        }
        for wrong in ["", "abc", "md5:abcd", "sha1:abcd", &sha1[1..]] {
            assert_eq!(Signature::parse(wrong), None, "{wrong}");
        }
    }
}
