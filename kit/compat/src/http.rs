//! A plain HTTP/1.1 client, one connection per request: scenarios want to see exactly what was sent and answered.

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;

const ANSWER_SECONDS_MAX: u64 = 60;

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case, in the order of arrival.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

pub async fn send(method: &str, url: &str, headers: &[(String, String)], body: Vec<u8>) -> Result<Answer> {
    let asked =
        tokio::time::timeout(Duration::from_secs(ANSWER_SECONDS_MAX), ask(method, url, headers, body)).await;
    asked
        .map_err(|_| anyhow!("no answer in {ANSWER_SECONDS_MAX} s"))
        .and_then(|answer| answer)
        .with_context(|| format!("{method} {url}"))
}

async fn ask(method: &str, url: &str, headers: &[(String, String)], body: Vec<u8>) -> Result<Answer> {
    let rest = url.strip_prefix("http://").context("only http:// is spoken here")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", authority);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let answer = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes().to_vec();
    driver.abort();
    let headers = parts.headers.iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    Ok(Answer { status: parts.status.as_u16(), headers: headers.collect(), body })
}
