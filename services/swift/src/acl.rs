//! Container access lists: how they are written down, and whom a list of referrers lets in.

use base::{Error, Result};

/// A list of `X-Container-Read` or `-Write`, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Acl {
    pub referrers: Vec<String>,
    pub groups: Vec<String>,
}

impl Acl {
    pub fn parse(text: &str) -> Self {
        let mut acl = Self::default();
        for item in text.split(',').filter(|item| !item.is_empty()) {
            match item.strip_prefix(".r:") {
                Some(referrer) => acl.referrers.push(referrer.into()),
                None => {
                    let group = percent_encoding::percent_decode_str(item).decode_utf8_lossy();
                    acl.groups.push(group.into_owned());
                }
            }
        }
        acl
    }

    pub fn has(&self, group: &str) -> bool {
        self.groups.iter().any(|one| one == group)
    }

    /// The last of the list that fits decides.
    pub fn allows_referrer(&self, referer: Option<&str>) -> bool {
        let host = referer.and_then(host).unwrap_or_else(|| "unknown".into());
        let fits = |pattern: &str| {
            pattern == "*" || pattern == host || (pattern.starts_with('.') && host.ends_with(pattern))
        };
        self.referrers.iter().fold(false, |allowed, pattern| match pattern.strip_prefix('-') {
            Some(pattern) => allowed && !(pattern != "*" && fits(pattern)),
            None => allowed || fits(pattern),
        })
    }
}

/// The list as it is kept: without blanks and empty items, referrers in their short form.
pub fn clean(text: &str, writes: bool) -> Result<String> {
    let mut items = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        items.push(match item.split_once(':') {
            Some((first, second)) if first.trim().starts_with('.') => {
                designator(item, first.trim(), second.trim(), writes)?
            }
            _ => item.to_string(),
        });
    }
    Ok(items.join(","))
}

fn designator(item: &str, first: &str, second: &str, writes: bool) -> Result<String> {
    if !matches!(first, ".r" | ".ref" | ".referer" | ".referrer") {
        return Err(Error::bad_request(format!("Unknown designator '{first}' in ACL: '{item}'")));
    }
    if writes {
        return Err(Error::bad_request(format!("Referrers not allowed in write ACL: '{item}'")));
    }
    let (minus, host) = match second.strip_prefix('-') {
        Some(host) => ("-", host.trim()),
        None => ("", second),
    };
    let host = match host.strip_prefix('*') {
        Some(rest) if !rest.is_empty() => rest.trim(),
        _ => host,
    };
    if host.is_empty() || host == "." {
        let text = format!("No host/domain value after referrer designation in ACL: '{item}'");
        return Err(Error::bad_request(text));
    }
    Ok(format!(".r:{minus}{host}"))
}

fn host(url: &str) -> Option<String> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?.split(':').next()?;
    (!host.is_empty()).then(|| host.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_cleaned() {
        for (given, kept) in [
            ("bob, sue", "bob,sue"),
            ("bob,,,sue", "bob,sue"),
            (".referrer : *", ".r:*"),
            (".ref:*.example.com", ".r:.example.com"),
            (".r:*, .rlistings", ".r:*,.rlistings"),
            (".r:-*.thief.com", ".r:-.thief.com"),
            ("p:u, *:*", "p:u,*:*"),
        ] {
            assert_eq!(clean(given, false).unwrap(), kept, "{given}");
        }
        for wrong in [".r:", ".r:-", ".r:*.", ".x:y"] {
            assert!(clean(wrong, false).is_err(), "{wrong}");
        }
        assert!(clean(".r:*", true).is_err());
    }

    #[test]
    fn referrers() {
        let allows = |list: &str, referer: &str| Acl::parse(list).allows_referrer(Some(referer));
        assert!(allows(".r:*", "http://a.example.com/x"));
        assert!(Acl::parse(".r:*").allows_referrer(None));
        assert!(!Acl::parse(".r:.example.com").allows_referrer(None));
        assert!(allows(".r:.example.com", "http://a.example.com:80/x?y"));
        assert!(!allows(".r:.example.com,.r:-a.example.com", "http://a.example.com/"));
        assert!(allows(".r:*,.r:-.thief.com,.r:good.thief.com", "https://u@good.thief.com"));
        assert!(!allows("p:u", "http://a"));
    }
}
