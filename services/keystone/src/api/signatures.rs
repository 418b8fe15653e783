//! `ec2tokens` and `s3tokens`: services that speak AWS's languages ask here whether a request was signed with a
//! user's key pair. Closed to all but services: a signed URL may travel far, and must not become a token.

use super::{auth::described, credentials::ec2_id, whole_body};
use crate::{
    Keystone,
    authentication::unauthorized,
    fernet::{self, Payload, Scope},
    model::*,
    signature, store,
};
use base::{Error, Json, Result, Timestamp};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use web::{Reply, Request, Routes, StatusCode, post};

pub fn routes() -> Routes<Keystone> {
    vec![
        post("/v3/ec2tokens", "identity:ec2tokens_validate", ec2),
        post("/v3/s3tokens", "identity:s3tokens_validate", s3),
    ]
}

/// A signed request is good for so long after its time.
const SIGNATURE_LIFETIME: Duration = Duration::from_secs(15 * 60);

async fn ec2(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let (token, valid) = keystone.by_signature(&request, signature::is_ec2).await?;
    Ok(described(&request, StatusCode::OK, &token, &valid))
}

/// The answer has no token: the service learns who asked, and cannot act as it.
async fn s3(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let (_, valid) = keystone.by_signature(&request, signature::is_s3).await?;
    Ok(Reply::body(StatusCode::OK, "application/json", valid.body.clone()).header("vary", "X-Auth-Token"))
}

impl Keystone {
    async fn by_signature(
        &self,
        request: &Request,
        is_signed: fn(&str, &Json) -> Result<bool>,
    ) -> Result<(String, Arc<crate::tokens::Valid>)> {
        let body = whole_body(request)?;
        if body.as_object().is_none_or(|body| body.is_empty()) {
            return Err(Error::bad_request("request must include a request body"));
        }
        let given = ["credentials", "credential", "ec2Credentials"].iter().find_map(|key| body.get(*key));
        let given = given.cloned().unwrap_or(json!({}));
        let access = given.get("access").and_then(Json::as_str).ok_or_else(unauthorized)?;
        let id = ec2_id(&json!({"access": access}).to_string())?;
        let found = self.read(move |tx| tx.find::<Credential>(&id)).await?;
        let credential = found.filter(|credential| credential.kind == "ec2");
        let credential = credential.ok_or_else(|| Error::not_found("EC2 access key not found."))?;
        let blob: Json = serde_json::from_str(&self.reveal(&credential.blob)?)?;
        if !is_signed(blob["secret"].as_str().unwrap_or_default(), &given)? {
            tracing::info!(user_id = credential.user_id, "wrong signature");
            return Err(unauthorized());
        }
        check_time(&given, self.clock.now())?;
        let payload = self.signers_payload(&credential, &blob).await?;
        self.issue(payload).await
    }

    /// A token that is good for what the key pair was made with, and no more.
    async fn signers_payload(&self, credential: &Credential, blob: &Json) -> Result<Payload> {
        let word = |key: &str| blob.get(key).and_then(Json::as_str).map(str::to_string);
        let project_id = credential.project_id.clone().ok_or_else(unauthorized)?;
        let (trust_id, application_id, access_token_id) =
            (word("trust_id"), word("app_cred_id"), word("access_token_id"));
        let (mut user_id, project) = (credential.user_id.clone(), project_id.clone());
        let scope = self
            .read(move |tx| {
                if let Some(trust_id) = trust_id.clone() {
                    let trust: Trust = store::find(tx, &trust_id)?;
                    let scope = Scope::Trust { project_id: project.clone(), trust_id };
                    return Ok((Some(trust.trustee_user_id), trust.project_id, scope));
                }
                if let Some(credential_id) = application_id.clone() {
                    let credential: ApplicationCredential = store::find(tx, &credential_id)?;
                    let scope = Scope::Application { project_id: project.clone(), credential_id };
                    return Ok((None, Some(credential.project_id), scope));
                }
                if let Some(access_token_id) = access_token_id.clone() {
                    let token: AccessToken = store::find(tx, &access_token_id)?;
                    let scope = Scope::OAuth1 { project_id: project.clone(), access_token_id };
                    return Ok((None, Some(token.project_id), scope));
                }
                Ok((None, Some(project.clone()), Scope::Project(project.clone())))
            })
            .await?;
        let (trustee, allowed, scope) = scope;
        if allowed.as_deref() != Some(project_id.as_str()) {
            return Err(unauthorized());
        }
        user_id = trustee.unwrap_or(user_id);
        let issued_at = fernet::issue_time(&self.clock);
        Ok(Payload {
            federated: None,
            user_id,
            methods: vec!["ec2credential"],
            scope,
            expires_at: issued_at.plus(Duration::from_secs(self.options.token_expiration_seconds)),
            audit_ids: vec![fernet::audit_id()],
            issued_at,
        })
    }
}

/// The signature's own time, where it has one.
fn check_time(given: &Json, now: Timestamp) -> Result<()> {
    let word =
        |group: &str, name: &str| given.get(group).and_then(|group| group.get(name)).and_then(Json::as_str);
    let at = word("params", "Timestamp").or(word("headers", "X-Amz-Date")).or(word("params", "X-Amz-Date"));
    let Some(at) = at else { return Ok(()) };
    let at = parse_time(at).ok_or_else(unauthorized)?;
    match at.plus(SIGNATURE_LIFETIME) < now {
        true => Err(unauthorized()),
        false => Ok(()),
    }
}

/// ISO 8601, also without its marks as AWS writes it: `20261120T081530Z`.
fn parse_time(text: &str) -> Option<Timestamp> {
    let digits: Vec<char> = text.chars().collect();
    match digits.as_slice() {
        [a, b, c, d, e, f, g, h, 'T', i, j, k, l, m, n, 'Z'] => {
            Timestamp::parse(&format!("{a}{b}{c}{d}-{e}{f}-{g}{h}T{i}{j}:{k}{l}:{m}{n}Z"))
        }
        _ => Timestamp::parse(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_signatures_are_refused() {
        let now = Timestamp::parse("2026-11-20T08:15:30Z").unwrap();
        for (given, good) in [
            (json!({}), true),
            (json!({"headers": {"X-Amz-Date": "20261120T080130Z"}}), true),
            (json!({"headers": {"X-Amz-Date": "20261120T075930Z"}}), false),
            (json!({"params": {"Timestamp": "2026-11-20T08:15:30Z"}}), true),
            (json!({"params": {"Timestamp": "2026-11-20T07:15:30Z"}}), false),
            (json!({"params": {"X-Amz-Date": "yesterday"}}), false),
        ] {
            assert_eq!(check_time(&given, now).is_ok(), good, "{given}");
        }
    }
}
