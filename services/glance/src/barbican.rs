//! Certificates of a key manager that speaks barbican's API, asked with the caller's token.

use crate::http::{self, Target};
use async_trait::async_trait;
use axum::{
    body::Body,
    http::{Response, StatusCode, header},
};
use base::{Context, Error, Json, Result};
use contracts::{identity::Catalog, keys::Certificates};
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::sync::Arc;
use x509_cert::der::Decode;

pub struct Barbican {
    pub catalog: Arc<dyn Catalog>,
    pub region: String,
    /// Empty: as the caller's catalog says.
    pub url: String,
}

#[async_trait]
impl Certificates for Barbican {
    async fn certificate(&self, cx: &Context, id: &str) -> Result<Vec<u8>> {
        let id = utf8_percent_encode(id, NON_ALPHANUMERIC).to_string().replace("%2D", "-");
        let described = self.ask(cx, &format!("secrets/{id}"), "application/json").await?;
        let described: Json = serde_json::from_str(&http::text(described.into_body()).await?)
            .map_err(|e| Error::unavailable(format!("the key manager tells of {id}: {e}")))?;
        match described["secret_type"].as_str() {
            Some("certificate") => {}
            Some("public") => return Err(Error::bad_request("SubjectPublicKeyInfo")),
            Some("private") => return Err(Error::bad_request("PKCS8")),
            Some("symmetric" | "passphrase") => return Err(Error::bad_request("RAW")),
            _ => return Err(Error::bad_request("Opaque")),
        }
        let kind = described["content_types"]["default"].as_str().unwrap_or("application/octet-stream");
        let payload = self.ask(cx, &format!("secrets/{id}/payload"), kind).await?;
        let text = http::text(payload.into_body()).await?;
        let (_, der) = pem(&text).map_err(|e| Error::unavailable(format!("certificate {id}: {e}")))?;
        Ok(der)
    }
}

/// Barbican keeps certificates in PEM.
fn pem(text: &str) -> Result<(String, Vec<u8>)> {
    use x509_cert::der::Encode;
    let wrong = |e: x509_cert::der::Error| Error::bad_request(e.to_string());
    let parsed = x509_cert::Certificate::load_pem_chain(text.as_bytes()).map_err(wrong)?;
    let first = parsed.first().ok_or_else(|| Error::bad_request("no certificate"))?;
    let der = first.to_der().map_err(wrong)?;
    x509_cert::Certificate::from_der(&der).map_err(wrong)?;
    Ok((first.tbs_certificate.subject.to_string(), der))
}

impl Barbican {
    async fn ask(&self, cx: &Context, path: &str, accept: &str) -> Result<Response<Incoming>> {
        let endpoint = match self.url.as_str() {
            "" => self.catalog.endpoint(cx, "key-manager", &self.region, "public").await?,
            url => Some(url.to_string()),
        };
        let endpoint = endpoint.ok_or_else(|| Error::unavailable("there is no key manager"))?;
        let endpoint = endpoint.trim_end_matches('/').trim_end_matches("/v1");
        let url = format!("{endpoint}/v1/{path}");
        let target = Target::trusted(&url).await?;
        let request = http::request(&target, "GET")
            .header("x-auth-token", &cx.token)
            .header(header::ACCEPT, accept)
            .body(Body::empty());
        let answer =
            http::send(&target, request.map_err(|e| Error::internal(format!("{url}: {e}")))?).await?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::NOT_FOUND => Err(Error::not_found(format!("{url} is not there"))),
            status => Err(Error::unavailable(format!("{url} answered {status}"))),
        }
    }
}
