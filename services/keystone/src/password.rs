//! Password hashes, never on the threads that serve requests: made with bcrypt at keystone's cost, and read in every
//! form that a keystone has written.

use base::{Error, Result, Secret};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha512};

/// More is cut off by bcrypt itself; longer ones would only look stronger.
const PASSWORD_BYTES_MAX: usize = 72;

/// A gibibyte of memory for one comparison, with the usual block size.
const SCRYPT_LOG_N_MAX: u8 = 20;

pub async fn hash(password: Secret, rounds: u32) -> Result<String> {
    let work = move || bcrypt::hash(cut(password.expose()), rounds);
    let hashed = tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(e.to_string()))?;
    hashed.map_err(|e| Error::internal(format!("bcrypt: {e}")))
}

/// Whether the password belongs to the hash. Without a hash (no such user, none set) it takes as long and says no.
pub async fn verify(password: Secret, stored: Option<String>, rounds: u32) -> Result<bool> {
    let known = stored.is_some();
    let stored = stored.unwrap_or_else(|| nobody(rounds));
    let work = move || matches(password.expose(), &stored).unwrap_or(false);
    let fits = tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(e.to_string()))?;
    Ok(fits && known)
}

/// None for a hash of no known form. The forms are those of keystone's users, whichever hash they were made with.
fn matches(password: &str, stored: &str) -> Option<bool> {
    let fields: Vec<&str> = stored.strip_prefix('$')?.split('$').collect();
    match fields.as_slice() {
        ["bcrypt-sha256", settings, salt, digest] => bcrypt_sha256(password, settings, salt, digest),
        ["scrypt", settings, salt, digest] => scrypt(password, settings, salt, digest),
        ["pbkdf2-sha512", rounds, salt, digest] => pbkdf2_sha512(password, rounds, salt, digest),
        _ => bcrypt::verify(cut(password), stored).ok(),
    }
}

/// Bcrypt over a digest of the password, which lifts the limit of its length.
fn bcrypt_sha256(password: &str, settings: &str, salt: &str, digest: &str) -> Option<bool> {
    let mut mac = Hmac::<Sha256>::new_from_slice(salt.as_bytes()).ok()?;
    mac.update(password.as_bytes());
    let short = STANDARD.encode(mac.finalize().into_bytes());
    let (kind, rounds) = (setting(settings, "t")?, setting(settings, "r")?.parse::<u32>().ok()?);
    bcrypt::verify(short, &format!("${kind}${rounds:02}${salt}{digest}")).ok()
}

fn scrypt(password: &str, settings: &str, salt: &str, digest: &str) -> Option<bool> {
    let number = |name: &str| setting(settings, name)?.parse::<u32>().ok();
    let log_n = u8::try_from(number("ln")?).ok().filter(|log_n| *log_n <= SCRYPT_LOG_N_MAX)?;
    let params = scrypt::Params::new(log_n, number("r")?, number("p")?).ok()?;
    let (salt, wanted) = (bytes(salt)?, bytes(digest)?);
    let mut made = vec![0; wanted.len()];
    scrypt::scrypt(password.as_bytes(), &salt, &params, &mut made).ok()?;
    Some(same(&made, &wanted))
}

fn pbkdf2_sha512(password: &str, rounds: &str, salt: &str, digest: &str) -> Option<bool> {
    let rounds = rounds.parse::<u32>().ok().filter(|rounds| *rounds > 0)?;
    let (salt, wanted) = (bytes(salt)?, bytes(digest)?);
    let mut made = vec![0; wanted.len()];
    pbkdf2::pbkdf2_hmac::<Sha512>(password.as_bytes(), &salt, rounds, &mut made);
    Some(same(&made, &wanted))
}

/// `ln=16,r=8` by name.
fn setting<'a>(settings: &'a str, name: &str) -> Option<&'a str> {
    settings
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// Base64 without padding, with a dot for the plus in what is old.
fn bytes(text: &str) -> Option<Vec<u8>> {
    STANDARD_NO_PAD.decode(text.replace('.', "+")).ok().filter(|bytes| !bytes.is_empty())
}

/// In a time that does not tell where they differ.
fn same(made: &[u8], wanted: &[u8]) -> bool {
    made.len() == wanted.len() && made.iter().zip(wanted).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

fn cut(password: &str) -> &[u8] {
    let bytes = password.as_bytes();
    &bytes[..bytes.len().min(PASSWORD_BYTES_MAX)]
}

/// A well-formed hash of the right cost.
fn nobody(rounds: u32) -> String {
    format!("$2b${rounds:02}$abcdefghijklmnopqrstuu{}", "a".repeat(31))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_password_fits() {
        let hashed = hash(Secret::new("x"), 4).await.unwrap();
        assert!(hashed.starts_with("$2b$04$"));
        let verify = |password: &str, hash: Option<&String>| verify(Secret::new(password), hash.cloned(), 4);
        assert!(verify("x", Some(&hashed)).await.unwrap());
        assert!(!verify("y", Some(&hashed)).await.unwrap());
        assert!(!verify("x", None).await.unwrap());
        assert!(!verify("x", Some(&"rubbish".into())).await.unwrap());
    }

    /// Made by the reference's own hashers, and by hand what must not do.
    #[test]
    fn every_form_that_keystone_wrote_is_read() {
        for (stored, fits) in [
            ("$2b$04$3zNoXC28/.eqBtFrkFkcGuZRjqEJ/1gUCxPnmlfJDTv0zD/lisWj6", Some(true)),
            (
                "$bcrypt-sha256$v=2,t=2b,r=10$FdGcIXDO43cLC2OthDxSfe$5lIWzjt3hzclphxeYauTCxJ1Cuv990G",
                Some(true),
            ),
            (
                "$scrypt$ln=4,r=8,p=1$iq3KmuJCOvIQf00NqnJtrQ$qy9BKI++W7mFrXACuhV3qBUpv+72UQBXTzzFEYY76TE",
                Some(true),
            ),
            (
                "$scrypt$ln=4,r=8,p=1$iq3KmuJCOvIQf00NqnJtrQ$qy9BKI++W7mFrXACuhV3qBUpv+72UQBXTzzFEYY76TI",
                Some(false),
            ),
            (
                "$scrypt$ln=60,r=8,p=1$iq3KmuJCOvIQf00NqnJtrQ$qy9BKI++W7mFrXACuhV3qBUpv+72UQBXTzzFEYY76TE",
                None,
            ),
            (
                "$pbkdf2-sha512$10$d1EHktZA+ljsIHWirMCL5w$//5D4IEUOxbnTAneYFozw2/e4aesVFvdNfS02pGQHPnmPcWMZgWPmJveCP5Pm8rI+LQsFaZcEIsvw45689hYAw",
                Some(true),
            ),
            (
                "$pbkdf2-sha512$11$d1EHktZA+ljsIHWirMCL5w$//5D4IEUOxbnTAneYFozw2/e4aesVFvdNfS02pGQHPnmPcWMZgWPmJveCP5Pm8rI+LQsFaZcEIsvw45689hYAw",
                Some(false),
            ),
            ("$pbkdf2-sha512$0$d1EHktZA+ljsIHWirMCL5w$AAAA", None),
            ("$scrypt$ln=4,r=8,p=1$$", None),
            ("$1$old$hash", None),
            ("", None),
        ] {
            assert_eq!(matches("secret", stored), fits, "{stored}");
            assert!(!matches("Secret", stored).unwrap_or(false), "{stored}");
        }
    }

    #[test]
    fn an_unknown_user_costs_a_real_comparison() {
        let stored: bcrypt::HashParts = nobody(5).parse().unwrap();
        assert_eq!(stored.get_cost(), 5);
        assert!(!bcrypt::verify("x", &nobody(5)).unwrap());
    }
}
