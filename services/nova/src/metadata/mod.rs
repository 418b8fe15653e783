//! The metadata service: what a guest finds at 169.254.169.254, handed on by the network agents' proxies, which
//! say who asks and sign it.

mod content;
mod ec2;

pub use content::drive_files;

use crate::{Nova, model::GuestPassword, store};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use base::{Error, ErrorKind, Result, Secret};
use content::{About, Found};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::sync::Arc;

/// As nova keeps it: four pieces of 255 bytes.
const PASSWORD_BYTES_MAX: usize = 4 * 255;

struct Service {
    nova: Arc<Nova>,
    shared_secret: Secret,
}

/// For port 8775. The secret is the one that the proxies sign with.
pub fn router(nova: Arc<Nova>, shared_secret: Secret) -> Router {
    Router::new().fallback(answer).with_state(Arc::new(Service { nova, shared_secret }))
}

async fn answer(
    State(service): State<Arc<Service>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let done = service.answer(&method, uri.path(), &headers, &body).await;
    done.unwrap_or_else(|error| {
        let status = match error.kind {
            ErrorKind::BadRequest => StatusCode::BAD_REQUEST,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let message = match status {
            StatusCode::INTERNAL_SERVER_ERROR => {
                tracing::error!(?error, "metadata");
                "An unknown error has occurred. Please try your request again."
            }
            _ => error.message.as_str(),
        };
        (status, [(header::CONTENT_TYPE, TEXT)], format!("{message}\n")).into_response()
    })
}

const TEXT: &str = "text/plain; charset=UTF-8";

impl Service {
    async fn answer(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response> {
        let path = normal(path);
        if path == "/" {
            return Ok(text(ec2::versions().join("\n")));
        }
        let (instance_id, project_id) = self.asker(headers)?;
        let about = self.about(&instance_id, &project_id).await?;
        let missing = || Error::not_found("The resource could not be found.");
        match content::lookup(&about, &path).ok_or_else(missing)? {
            Found::Text(found) => Ok(text(found)),
            Found::Bytes(found) => Ok(([(header::CONTENT_TYPE, TEXT)], found).into_response()),
            Found::Json(found) => {
                Ok(([(header::CONTENT_TYPE, "application/json")], found.to_string()).into_response())
            }
            Found::Password => self.password(&instance_id, method, body).await,
        }
    }

    /// Instance and project, by the word of a proxy that knows the secret.
    fn asker(&self, headers: &HeaderMap) -> Result<(String, String)> {
        let header = |name: &str| {
            let mut all = headers.get_all(name).iter();
            let first = all.next().and_then(|value| value.to_str().ok());
            match (first, all.next()) {
                (Some(value), None) => Ok(value.to_string()),
                (None, _) => Err(Error::bad_request(format!("{name} header is missing from request."))),
                _ => Err(Error::bad_request(format!("Multiple {name} headers found within request."))),
            }
        };
        let instance_id = header("X-Instance-ID")?;
        let signature = header("X-Instance-ID-Signature")?;
        let project_id = header("X-Tenant-ID")?;
        let mut mac = Hmac::<Sha256>::new_from_slice(self.shared_secret.expose().as_bytes())
            .map_err(|e| Error::internal(e.to_string()))?;
        mac.update(instance_id.as_bytes());
        let good = bytes_of_hex(&signature).is_some_and(|bytes| mac.verify_slice(&bytes).is_ok());
        match good && !self.shared_secret.is_empty() {
            true => Ok((instance_id, project_id)),
            false => {
                tracing::warn!(instance = instance_id, "wrong signature of a metadata request");
                Err(Error::forbidden("Invalid proxy request signature."))
            }
        }
    }

    async fn about(&self, instance_id: &str, project_id: &str) -> Result<About> {
        let uuid = instance_id.to_string();
        let found = self
            .nova
            .read(move |tx| Ok((store::instance(tx, &uuid)?, store::block_devices(tx, &uuid)?)))
            .await;
        let (instance, devices) = found?;
        if instance.project_id != project_id {
            return Err(Error::not_found("The resource could not be found."));
        }
        Ok(About::new(&self.nova, instance, devices))
    }

    /// The guest leaves its administrator's password here, encrypted for its owner, and may do so once.
    async fn password(&self, uuid: &str, method: &Method, body: &Bytes) -> Result<Response> {
        let key = uuid.to_string();
        let held = self.nova.read(move |tx| tx.find::<GuestPassword>(&key)).await?;
        let held = held.map(|row| row.password).unwrap_or_default();
        match *method {
            Method::GET => Ok(text(held)),
            Method::POST if !held.is_empty() => {
                Err(Error::conflict("There was a conflict when trying to complete your request."))
            }
            Method::POST if body.len() > PASSWORD_BYTES_MAX => {
                Err(Error::bad_request("Request is too large."))
            }
            Method::POST => {
                let row = GuestPassword {
                    instance_uuid: uuid.to_string(),
                    password: String::from_utf8_lossy(body).into_owned(),
                };
                self.nova.write(move |tx| if tx.update(&row)? { Ok(()) } else { tx.insert(&row) }).await?;
                Ok(StatusCode::OK.into_response())
            }
            _ => Err(Error::bad_request(
                "The server could not comply with the request since it is either malformed or otherwise incorrect.",
            )),
        }
    }
}

fn text(body: String) -> Response {
    ([(header::CONTENT_TYPE, TEXT)], body).into_response()
}

/// Without doubled slashes, dots, and a slash at the end.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| digit.try_into().ok())).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_plain() {
        for (path, plain) in
            [("", "/"), ("/", "/"), ("//latest/", "/latest"), ("/a/./b/../c", "/a/c"), ("/../..", "/")]
        {
            assert_eq!(normal(path), plain, "{path}");
        }
    }

    #[test]
    fn hex() {
        assert_eq!(bytes_of_hex("00fF1a"), Some(vec![0, 255, 26]));
        assert_eq!(bytes_of_hex("0"), None);
        assert_eq!(bytes_of_hex("zz"), None);
    }
}
