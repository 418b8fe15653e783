//! Receipts: who has shown one of several methods gets one, and comes again with it and the next method.
//! They are Fernet texts as upstream's: who, by which methods, until when.

use crate::{
    Keystone,
    fernet::{self, Payload, Scope},
    model::*,
};
use base::{Error, Json, Result, Timestamp};
use serde_json::json;
use std::{collections::HashSet, time::Duration};

/// So long there is to show the next method.
const LIFETIME: Duration = Duration::from_secs(300);

/// What is answered instead of a token while a method is missing.
pub struct Receipt {
    pub text: String,
    pub body: Json,
}

/// The rules of the user that can be met here, each a set of methods. Empty: any method will do.
fn rules(user: &User) -> Vec<Vec<&str>> {
    if user.options.get("multi_factor_auth_enabled") == Some(&json!(false)) {
        return Vec::new();
    }
    let given = user.options.get("multi_factor_auth_rules").and_then(Json::as_array);
    let known = |rule: &'_ Json| -> Vec<&str> {
        fernet::METHODS.iter().filter(|one| has(rule, one)).copied().collect()
    };
    given.into_iter().flatten().map(known).filter(|rule| !rule.is_empty()).collect()
}

fn has(rule: &Json, method: &str) -> bool {
    rule.as_array().into_iter().flatten().any(|one| one == method)
}

/// Whether the methods shown meet one of the user's rules.
pub fn suffices(user: &User, methods: &[&'static str]) -> bool {
    let rules = rules(user);
    rules.is_empty() || rules.iter().any(|rule| rule.iter().all(|method| methods.contains(method)))
}

impl Keystone {
    pub(crate) async fn receipt(&self, user: User, methods: Vec<&'static str>) -> Result<Receipt> {
        let id = user.domain_id.clone();
        let domain = self.read(move |tx| tx.find::<Project>(&id)).await?;
        let domain = domain.ok_or_else(|| Error::internal("a user without a domain"))?;
        let issued_at = fernet::issue_time(&self.clock);
        let expires_at = issued_at.plus(LIFETIME);
        let required: Vec<Vec<&str>> = rules(&user)
            .into_iter()
            .filter(|rule| rule.iter().any(|method| methods.contains(method)))
            .collect();
        let body = json!({
            "receipt": {
                "methods": methods,
                "user": {
                    "id": user.id, "name": user.name, "domain": {"id": domain.id, "name": domain.name},
                },
                "expires_at": expires_at.micros_z(),
                "issued_at": issued_at.micros_z(),
            },
            "required_auth_methods": required,
        });
        let payload = Payload {
            user_id: user.id.clone(),
            methods,
            scope: Scope::Unscoped,
            federated: None,
            expires_at,
            audit_ids: Vec::new(),
            issued_at,
        };
        Ok(Receipt { text: self.token_keys.seal_receipt(&payload)?, body })
    }

    /// The methods that a receipt of this user's proves.
    pub(crate) fn receipted(&self, text: &str, user_id: &str, now: Timestamp) -> Result<Vec<&'static str>> {
        let payload = self.token_keys.open_receipt(text);
        let mine = payload.filter(|payload| payload.user_id == user_id && payload.expires_at > now);
        let none = || Error::unauthorized(format!("Could not find auth receipt: {text}."));
        mine.map(|payload| payload.methods).ok_or_else(none)
    }
}

/// Both, each once.
pub fn union(mine: &[&'static str], others: Vec<&'static str>) -> Vec<&'static str> {
    let mut seen = HashSet::new();
    mine.iter().copied().chain(others).filter(|method| seen.insert(*method)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(options: Json) -> User {
        User {
            id: "u".into(),
            name: "u".into(),
            domain_id: "default".into(),
            enabled: true,
            default_project_id: None,
            password_hash: None,
            password_changed_at: None,
            password_expires_at: None,
            password_set_by_owner: false,
            failed_logins: 0,
            failed_login_at: None,
            last_active_at: None,
            options,
            extra: json!({}),
        }
    }

    #[test]
    fn one_rule_must_be_met_whole() {
        let two = json!({"multi_factor_auth_rules": [["password", "totp"], ["application_credential"]]});
        let unknown = json!({"multi_factor_auth_rules": [["retina"]]});
        let off =
            json!({"multi_factor_auth_enabled": false, "multi_factor_auth_rules": [["password", "totp"]]});
        for (options, methods, enough) in [
            (json!({}), vec!["password"], true),
            (two.clone(), vec!["password"], false),
            (two.clone(), vec!["totp"], false),
            (two.clone(), vec!["password", "totp"], true),
            (two.clone(), vec!["application_credential"], true),
            // A rule that nobody could meet locks nobody out.
            (unknown, vec!["password"], true),
            (off, vec!["password"], true),
        ] {
            assert_eq!(suffices(&user(options.clone()), &methods), enough, "{options} {methods:?}");
        }
    }
}
