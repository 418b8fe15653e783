//! How much an account and a container may hold.

use crate::{
    answer::{Outcome, refuse, refuse_page},
    auth::Access,
    call::Call,
    model::{Account, Container, Metadata},
};
use base::{Error, Result};

/// Where an account's row keeps them; headers have them without `sysmeta`.
const OF_ACCOUNTS: [(&str, &str); 2] = [
    ("x-account-quota-bytes", "x-account-sysmeta-quota-bytes"),
    ("x-account-quota-count", "x-account-sysmeta-quota-count"),
];
/// An older name of the first.
const LEGACY: &str = "x-account-meta-quota-bytes";

/// Takes an account's quotas from a request. Only resellers set them.
pub fn set_account(call: &mut Call, access: Access, metadata: &mut Metadata) -> Outcome<()> {
    for (remove, legacy) in [("", LEGACY), ("x-remove-", "x-remove-account-meta-quota-bytes")] {
        let new = if remove.is_empty() { OF_ACCOUNTS[0].0 } else { "x-remove-account-quota-bytes" };
        if let Some(value) = call.header(legacy).map(str::to_string) {
            if call.header(new).is_none() {
                call.set(new, &value);
            }
            call.headers.remove(legacy);
        }
    }
    for (name, kept) in OF_ACCOUNTS {
        let removes =
            call.header(&name.replacen("x-", "x-remove-", 1)).is_some_and(|value| !value.is_empty());
        let value = if removes { Some("") } else { call.header(name) };
        let Some(value) = value else { continue };
        if !access.reseller {
            return Err(refuse(403));
        }
        if !value.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refuse(400));
        }
        match value {
            "" => metadata.remove(kept),
            value => metadata.insert(kept.into(), value.into()),
        };
    }
    Ok(())
}

/// Everybody sees them.
pub fn tell_account(answer: &mut crate::answer::Answer, metadata: &Metadata) {
    for (name, kept) in OF_ACCOUNTS {
        if let Some(value) = metadata.get(kept) {
            answer.set(name, value);
        }
    }
}

pub fn check_container_headers(call: &Call) -> Outcome<()> {
    for (name, what) in [("bytes", "bytes"), ("count", "count")] {
        let value = call.header(&format!("x-container-meta-quota-{name}")).unwrap_or_default();
        if !value.bytes().all(|byte| byte.is_ascii_digit()) {
            let answer = refuse_page(400, format!("Invalid {what} quota."));
            return Err(answer);
        }
    }
    Ok(())
}

/// Whether so many bytes may come as one more object.
pub fn check(account: &Account, container: &Container, access: Access, bytes: i64) -> Result<()> {
    let exceeded = || Err(Error::over_quota("Upload exceeds quota."));
    let number = |metadata: &Metadata, key: &str| metadata.get(key).and_then(|text| text.parse::<i64>().ok());
    if number(&container.metadata, "x-container-meta-quota-bytes")
        .is_some_and(|max| container.bytes + bytes > max)
        || number(&container.metadata, "x-container-meta-quota-count")
            .is_some_and(|max| container.objects + 1 > max)
    {
        return exceeded();
    }
    if access.reseller {
        return Ok(());
    }
    if number(&account.metadata, OF_ACCOUNTS[0].1).is_some_and(|max| account.bytes + bytes > max)
        || number(&account.metadata, OF_ACCOUNTS[1].1).is_some_and(|max| account.objects + 1 > max)
    {
        return exceeded();
    }
    Ok(())
}
