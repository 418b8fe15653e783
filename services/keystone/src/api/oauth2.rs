//! OAuth 2 client credentials: an application credential's id and secret for a bearer token. Only the secret proves
//! a client here; certificates are not taken.

use crate::{Keystone, authentication::Answer};
use base::{Error, ErrorKind, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use std::sync::Arc;
use web::{Mark, Query, Reply, Request, Routes, StatusCode, post};

pub fn routes() -> Routes<Keystone> {
    vec![post("/v3/OS-OAUTH2/token", "", token).marks(&[Mark::Open, Mark::Raw])]
}

/// OAuth 2's own error body, not keystone's: clients of the RFC read it.
struct Refusal(StatusCode, &'static str, String);

async fn token(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let reply = match issue(&keystone, &request).await {
        Ok(reply) => reply,
        Err(Refusal(status, error, description)) => {
            let reply = Reply::json(status, json!({"error": error, "error_description": description}));
            match status == StatusCode::UNAUTHORIZED {
                true => reply.header("www-authenticate", format!("Keystone uri=\"{}/v3\"", request.base_url)),
                false => reply,
            }
        }
    };
    Ok(reply.header("vary", "X-Auth-Token"))
}

async fn issue(keystone: &Keystone, request: &Request) -> Result<Reply, Refusal> {
    let bytes = request.bytes();
    let form = Query::parse(&String::from_utf8_lossy(&bytes));
    let invalid = |error, description: String| Refusal(StatusCode::BAD_REQUEST, error, description);
    match form.get("grant_type") {
        Some("client_credentials") => {}
        None => return Err(invalid("invalid_request", "The parameter grant_type is required.".into())),
        Some(other) => {
            let description = format!("The parameter grant_type {other} is not supported.");
            return Err(invalid("unsupported_grant_type", description));
        }
    }
    let in_form = form
        .get("client_id")
        .map(|id| (id.to_string(), form.get("client_secret").unwrap_or_default().to_string()));
    let (id, secret) = basic(request)
        .or(in_form)
        .filter(|(id, secret)| !id.is_empty() && !secret.is_empty())
        .ok_or_else(failed)?;
    let proof = json!({"methods": ["application_credential"], "application_credential": {"id": id, "secret": secret}});
    let answer = keystone.authenticate(request, &json!({"auth": {"identity": proof}})).await;
    match answer {
        Ok(Answer::Token(token, _)) => Ok(Reply::ok(json!({
            "access_token": token, "token_type": "Bearer",
            "expires_in": keystone.options.token_expiration_seconds,
        }))),
        // One method is all that this way of logging in has.
        Ok(Answer::More(_)) => Err(failed()),
        Err(error) => Err(translated(error)),
    }
}

fn failed() -> Refusal {
    Refusal(StatusCode::UNAUTHORIZED, "invalid_client", "Client authentication failed.".into())
}

fn translated(error: Error) -> Refusal {
    let unknown = "An unknown error occurred and failed to get an OAuth2.0 access token.";
    match error.kind {
        ErrorKind::Unauthorized => Refusal(StatusCode::UNAUTHORIZED, "invalid_client", error.message),
        ErrorKind::BadRequest => Refusal(StatusCode::BAD_REQUEST, "invalid_request", error.message),
        ErrorKind::NotFound => Refusal(StatusCode::NOT_FOUND, "other_error", unknown.into()),
        _ => {
            tracing::error!(?error, "no OAuth 2 token");
            Refusal(StatusCode::INTERNAL_SERVER_ERROR, "other_error", unknown.into())
        }
    }
}

/// Id and secret of a `Basic` header.
fn basic(request: &Request) -> Option<(String, String)> {
    let (scheme, rest) = request.header("authorization")?.split_once(' ')?;
    let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':').filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    Some((id.to_string(), secret.to_string()))
}
