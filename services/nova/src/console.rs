//! The proxy between a browser and a server's screen: noVNC's pages, and the websocket behind them that becomes a
//! connection to the guest's VNC for who has a token.

use crate::{Nova, model::ConsoleToken, store};
use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, Request, State, WebSocketUpgrade, ws},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use base::{Error, Result, id};
use contracts::compute::ConsoleAddress;
use sha2::{Digest, Sha256};
use std::{
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What a guest sends is passed on in pieces of this size at most.
const PIECE_BYTES_MAX: usize = 64 * 1024;
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// The pages and the websocket, for port 6080.
pub fn router(nova: Arc<Nova>) -> Router {
    Router::new().fallback(answer).with_state(nova)
}

/// A new token's address for the browser.
pub async fn grant(nova: &Nova, instance_uuid: &str, kind: &str, address: &ConsoleAddress) -> Result<String> {
    let token = id::uuid();
    let now = nova.clock.now();
    let row = ConsoleToken {
        token_hash: hash(&token),
        instance_uuid: instance_uuid.to_string(),
        console_type: kind.to_string(),
        host: address.host.clone(),
        port: address.port.into(),
        expires_at: now.plus(Duration::from_secs(nova.options.console_token_seconds)),
    };
    nova.write(move |tx| {
        store::forget_old_console_tokens(tx, now)?;
        tx.insert(&row)
    })
    .await?;
    // noVNC takes the websocket's path, and the token with it, from the key `path`.
    let path: String = form_urlencoded::byte_serialize(format!("?token={token}").as_bytes()).collect();
    let base = &nova.options.novncproxy_base_url;
    let separator = if base.contains('?') { '&' } else { '?' };
    Ok(format!("{base}{separator}path={path}"))
}

/// What a token stands for while it holds.
pub async fn valid(nova: &Nova, token: &str) -> Result<Option<ConsoleToken>> {
    let (hash, now) = (hash(token), nova.clock.now());
    let found = nova.read(move |tx| tx.find::<ConsoleToken>(&hash)).await?;
    Ok(found.filter(|token| token.expires_at > now))
}

fn hash(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn answer(State(nova): State<Arc<Nova>>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &nova).await;
    let of_socket = upgrade.is_ok();
    let done = match upgrade {
        Ok(upgrade) => open(nova, &parts, upgrade).await,
        Err(_) => page(&nova, parts.uri.path()).await,
    };
    done.unwrap_or_else(|error| {
        let status = match error.kind {
            base::ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            base::ErrorKind::NotFound => StatusCode::NOT_FOUND,
            base::ErrorKind::Unavailable => StatusCode::BAD_GATEWAY,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status.is_server_error() {
            tracing::warn!(?error, "console");
        }
        // Who was refused a websocket waits for the end of the connection, and takes all before it for frames.
        let told = if of_socket { String::new() } else { format!("{}\n", error.message) };
        (status, [(header::CONNECTION, "close")], told).into_response()
    })
}

async fn open(nova: Arc<Nova>, parts: &Parts, upgrade: WebSocketUpgrade) -> Result<Response> {
    check_origin(&parts.headers)?;
    let denied = || Error::forbidden("The token is not valid or has expired.");
    let token = token(parts).ok_or_else(denied)?;
    let token = valid(&nova, &token).await?.ok_or_else(denied)?;
    let port = u16::try_from(token.port).map_err(|_| Error::internal("a port"))?;
    let unreachable = || Error::unavailable("The guest's screen cannot be reached.");
    let connecting = TcpStream::connect((token.host.as_str(), port));
    let guest = tokio::time::timeout(CONNECT_WITHIN, connecting).await.map_err(|_| unreachable())?;
    let guest = guest.map_err(|_| unreachable())?;
    tracing::info!(instance = token.instance_uuid, "console opened");
    Ok(upgrade.protocols(["binary"]).on_upgrade(move |socket| bridge(socket, guest)))
}

/// In the query, or where noVNC puts it for pages of old: in a cookie.
fn token(parts: &Parts) -> Option<String> {
    let query = parts.uri.query().unwrap_or_default();
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let in_query = pairs.find(|(key, value)| key == "token" && !value.is_empty());
    in_query.map(|(_, token)| token.into_owned()).or_else(|| {
        let cookies = parts.headers.get(header::COOKIE)?.to_str().ok()?;
        let mut cookies = cookies.split(';').filter_map(|cookie| cookie.trim().split_once('='));
        cookies.find(|(name, _)| *name == "token").map(|(_, token)| token.trim_matches('"').to_string())
    })
}

/// A browser says from which page it comes; another site's page has no business here.
fn check_origin(headers: &HeaderMap) -> Result<()> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    let origin = origin.split_once("://").map_or(origin, |(_, host)| host);
    let host = text(header::HOST).unwrap_or_default();
    match bare_host(origin) == bare_host(host) {
        true => Ok(()),
        false => Err(Error::forbidden("Origin header does not match this host.")),
    }
}

fn bare_host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Both ways until one side ends.
async fn bridge(mut browser: ws::WebSocket, guest: TcpStream) {
    let (mut from_guest, mut to_guest) = guest.into_split();
    let mut piece = vec![0; PIECE_BYTES_MAX];
    loop {
        tokio::select! {
            read = from_guest.read(&mut piece) => match read {
                Ok(count) if count > 0 => {
                    let message = ws::Message::Binary(piece[..count].to_vec().into());
                    if browser.send(message).await.is_err() {
                        return;
                    }
                }
                _ => break,
            },
            message = browser.recv() => {
                let bytes = match message {
                    Some(Ok(ws::Message::Binary(bytes))) => bytes,
                    Some(Ok(ws::Message::Ping(_) | ws::Message::Pong(_))) => continue,
                    _ => break,
                };
                if to_guest.write_all(&bytes).await.is_err() {
                    break;
                }
            }
        }
    }
    let _ = browser.send(ws::Message::Close(None)).await;
}

/// A file of noVNC.
async fn page(nova: &Nova, path: &str) -> Result<Response> {
    let missing = || Error::not_found("There is no such page. Is the package novnc installed?");
    let path = percent_encoding::percent_decode_str(path).decode_utf8().map_err(|_| missing())?;
    let below = below(&path).ok_or_else(missing)?;
    let file = Path::new(&nova.options.novnc_directory).join(below);
    let bytes = tokio::fs::read(&file).await.map_err(|_| missing())?;
    let headers = [(header::CONTENT_TYPE, media_type(&file)), (header::CACHE_CONTROL, "no-cache")];
    Ok((headers, Body::from(bytes)).into_response())
}

/// The path as one that cannot leave its directory.
fn below(path: &str) -> Option<PathBuf> {
    let relative = PathBuf::from(path.trim_start_matches('/'));
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    plain.then_some(relative)
}

fn media_type(file: &Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "ttf" => "font/ttf",
        "oga" => "audio/ogg",
        "mp3" => "audio/mpeg",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below() {
        for (path, fine) in [
            ("/vnc_lite.html", true),
            ("/core/rfb.js", true),
            ("/../etc/passwd", false),
            ("/a/../../b", false),
        ] {
            assert_eq!(below(path).is_some(), fine, "{path}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        for (origin, host, fine) in [
            ("", "cloud:6080", true),
            ("http://cloud:6080", "cloud:6080", true),
            ("https://cloud", "cloud:6080", true),
            ("http://elsewhere:6080", "cloud:6080", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            if !origin.is_empty() {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(check_origin(&headers).is_ok(), fine, "{origin}");
        }
    }
}
