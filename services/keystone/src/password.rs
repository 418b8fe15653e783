//! Password hashes: bcrypt with keystone's cost, never on the threads that serve requests.

use base::{Error, Result, Secret};

/// More is cut off by bcrypt itself; longer ones would only look stronger.
const PASSWORD_BYTES_MAX: usize = 72;

pub async fn hash(password: Secret, rounds: u32) -> Result<String> {
    let work = move || bcrypt::hash(cut(password.expose()), rounds);
    let hashed = tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(e.to_string()))?;
    hashed.map_err(|e| Error::internal(format!("bcrypt: {e}")))
}

/// Whether the password belongs to the hash. Without a hash (no such user, none set) it takes as long and says no.
pub async fn verify(password: Secret, stored: Option<String>, rounds: u32) -> Result<bool> {
    let known = stored.is_some();
    let stored = stored.unwrap_or_else(|| nobody(rounds));
    let work = move || bcrypt::verify(cut(password.expose()), &stored);
    let matches = tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(e.to_string()))?;
    Ok(matches.unwrap_or(false) && known)
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

    #[test]
    fn an_unknown_user_costs_a_real_comparison() {
        let stored: bcrypt::HashParts = nobody(5).parse().unwrap();
        assert_eq!(stored.get_cost(), 5);
        assert!(!bcrypt::verify("x", &nobody(5)).unwrap());
    }
}
