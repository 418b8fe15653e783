//! Who asks, for what, and until when. First argument everywhere; crosses the bus as a header.

use crate::{Timestamp, id};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A microversion, `2.104`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version(pub u16, pub u16);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (major, minor) = text.split_once('.').ok_or(())?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(major) || !digits(minor) {
            return Err(());
        }
        Ok(Self(major.parse().map_err(drop)?, minor.parse().map_err(drop)?))
    }
}

/// The caller and the call. Empty strings stand for what the token does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    /// `req-…`, ours; goes into every log line and answer.
    pub request_id: String,
    /// The caller's own `req-…`, when it sent a well-formed one.
    pub global_request_id: String,
    pub user_id: String,
    pub user_name: String,
    pub user_domain_id: String,
    pub user_domain_name: String,
    pub project_id: String,
    pub project_name: String,
    pub project_domain_id: String,
    pub project_domain_name: String,
    /// Set for a domain-scoped token.
    pub domain_id: String,
    pub domain_name: String,
    /// `all` for a system-scoped token.
    pub system_scope: String,
    /// Role names, implied roles included.
    pub roles: Vec<String>,
    /// Roles of the service token that came along (`X-Service-Token`).
    pub service_roles: Vec<String>,
    /// The token itself, for calls that another service checks again.
    pub token: String,
    pub token_expires_at: Option<Timestamp>,
    /// The negotiated microversion; none where a service has none.
    pub microversion: Option<Version>,
    /// After this moment nobody waits for the answer.
    pub deadline: Option<Timestamp>,
}

impl Context {
    /// The cloud acting for itself: admin and service, no project.
    pub fn internal() -> Self {
        Self {
            request_id: id::request(),
            user_name: "ferrostack".into(),
            roles: ["admin", "manager", "member", "reader", "service"].map(String::from).to_vec(),
            system_scope: "all".into(),
            ..Self::default()
        }
    }

    /// The same call with the cloud's own rights, for what a user may cause but not do.
    pub fn elevated(&self) -> Self {
        let mut context = self.clone();
        for role in ["admin", "manager", "member", "reader", "service"] {
            if !context.has_role(role) {
                context.roles.push(role.into());
            }
        }
        context
    }

    /// Role names compare without case, as oslo.policy does.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|held| held.eq_ignore_ascii_case(role))
    }

    pub fn is_admin(&self) -> bool {
        self.has_role("admin")
    }

    /// At least this microversion. Services without microversions answer false.
    pub fn since(&self, major: u16, minor: u16) -> bool {
        self.microversion.is_some_and(|version| version >= Version(major, minor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_by_number_not_by_text() {
        let version = |text: &str| text.parse::<Version>();
        assert!(version("2.100") > version("2.99"));
        for wrong in ["2", "2.", ".1", "2.x", "2.1.1", "+2.1", "2. 1", "latest"] {
            assert_eq!(version(wrong), Err(()), "{wrong}");
        }
    }
}
