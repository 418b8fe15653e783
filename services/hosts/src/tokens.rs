//! Tokens by which hosts join: made by an operator, good for a while and for one host. A token names the cloud's
//! authority too, so that whoever joins knows whom it talks to.

use crate::{Hosts, model::TokenRow, store};
use base::{Error, Result};
use rand::{Rng, distr::Alphanumeric};
use sha2::{Digest, Sha256};
use std::{fmt, fmt::Write, str::FromStr, time::Duration};

/// `id.secret.fingerprint`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub id: String,
    pub secret: String,
    /// SHA-256 of the authority's certificate.
    pub fingerprint: String,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.id, self.secret, self.fingerprint)
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [id, secret, fingerprint] = parts[..] else {
            return Err(Error::bad_request(
                "that is no token to join: it has three parts with points between",
            ));
        };
        if fingerprint.len() != 64 || id.is_empty() || secret.is_empty() {
            return Err(Error::bad_request("that is no token to join: a part of it is missing"));
        }
        Ok(Self { id: id.into(), secret: secret.into(), fingerprint: fingerprint.into() })
    }
}

impl Hosts {
    /// A new token. `minutes` none: as the configuration says; `roles` empty: any.
    pub async fn make_token(&self, minutes: Option<u64>, roles: Vec<String>) -> Result<Token> {
        let token = Token { id: random(8), secret: random(32), fingerprint: self.authority.fingerprint() };
        let span = Duration::from_secs(60 * minutes.unwrap_or(self.options.token_minutes));
        let now = self.clock.now();
        let row = TokenRow {
            id: token.id.clone(),
            hash: hex_sha256(token.secret.as_bytes()),
            roles,
            expires_at: now.plus(span),
            created_at: now,
        };
        self.write(move |tx| tx.insert(&row)).await?;
        Ok(token)
    }

    /// Uses a token up, also when it is a wrong one for the roles. `Unauthorized` says nothing of why.
    pub(crate) async fn use_token(&self, token: &Token, roles: &[String]) -> Result<()> {
        let (id, now) = (token.id.clone(), self.clock.now());
        let hash = hex_sha256(token.secret.as_bytes());
        let wrong = || Error::unauthorized("The token is wrong, used or expired.");
        let known = self
            .write(move |tx| match tx.find::<TokenRow>(&id)? {
                // Somebody who guesses shall not use up others' tokens.
                Some(row) if row.hash == hash => store::take_token(tx, &id, now),
                _ => Ok(None),
            })
            .await?
            .filter(|row| row.expires_at > now)
            .ok_or_else(wrong)?;
        match roles.iter().find(|role| !known.roles.is_empty() && !known.roles.contains(role)) {
            None => Ok(()),
            Some(role) => Err(Error::forbidden(format!("The token is not for hosts of the role {role}."))),
        }
    }
}

pub(crate) fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn random(length: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).take(length).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let token = Token { id: "a".into(), secret: "b".into(), fingerprint: "c".repeat(64) };
        assert!(token.to_string().parse::<Token>().unwrap() == token);
        for wrong in ["", "a.b", "a.b.c", "a.b.c.d", &format!(".b.{}", "c".repeat(64))] {
            assert!(wrong.parse::<Token>().is_err(), "{wrong}");
        }
    }
}
