//! Asks other people's web servers, over TLS or not. Who is asked is decided before: a [`Target`] has the address that
//! was judged, and that one is connected to.

use crate::bytes::Chunks;
use axum::body::Body;
use axum::http::{Request, Response, Uri, header, request};
use base::{Error, Result};
use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore},
};

const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// A server that sends nothing for so long has gone.
const SILENT_AT_MOST: Duration = Duration::from_secs(60);
/// What is read of an answer that is not an image.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A URL, and the address that stands for it.
#[derive(Clone, Debug)]
pub struct Target {
    pub uri: Uri,
    pub address: SocketAddr,
}

impl Target {
    /// Of a URL that an operator wrote: nobody judges where it leads.
    pub async fn trusted(uri: &str) -> Result<Self> {
        let parts = Parts::of(uri).ok_or_else(|| Error::bad_request(format!("{uri} is no URL")))?;
        let address = parts.addresses().await.into_iter().next();
        let address = address.ok_or_else(|| Error::unavailable(format!("{} has no address", parts.host)))?;
        Ok(Self { uri: parts.uri, address })
    }
}

/// A URL's parts, its port said or not.
pub struct Parts {
    pub uri: Uri,
    pub host: String,
    pub port: u16,
}

impl Parts {
    pub fn of(text: &str) -> Option<Self> {
        // What is behind a `#` is not for servers.
        let uri: Uri = text.split('#').next()?.parse().ok()?;
        let default = match uri.scheme_str()? {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_string();
        let port = uri.port_u16().unwrap_or(default);
        Some(Self { uri, host, port })
    }

    pub async fn addresses(&self) -> Vec<SocketAddr> {
        match timeout(CONNECT_WITHIN, tokio::net::lookup_host((self.host.as_str(), self.port))).await {
            Ok(Ok(found)) => found.collect(),
            _ => Vec::new(),
        }
    }
}

/// A request to a target, with the headers that every request has.
pub fn request(target: &Target, method: &str) -> request::Builder {
    let path = target.uri.path_and_query().map_or("/", |path| path.as_str());
    let host = target.uri.authority().map_or("", |authority| authority.as_str());
    // Credentials in a URL are not the host's name.
    let host = host.rsplit('@').next().unwrap_or(host);
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "ferrostack")
}

/// The answer, whatever its status. `Unavailable`: nobody answers.
pub async fn send(target: &Target, request: Request<Body>) -> Result<Response<Incoming>> {
    let unreachable = |e: &dyn std::fmt::Display| Error::unavailable(format!("{}: {e}", target.uri));
    let stream = timeout(CONNECT_WITHIN, TcpStream::connect(target.address))
        .await
        .map_err(|e| unreachable(&e))?
        .map_err(|e| unreachable(&e))?;
    if target.uri.scheme_str() != Some("https") {
        return exchange(target, stream, request).await;
    }
    let host =
        target.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_string();
    let name = ServerName::try_from(host).map_err(|e| unreachable(&e))?;
    let stream = timeout(CONNECT_WITHIN, TlsConnector::from(TLS.clone()).connect(name, stream))
        .await
        .map_err(|e| unreachable(&e))?
        .map_err(|e| unreachable(&e))?;
    exchange(target, stream, request).await
}

/// Trusts whom browsers trust.
static TLS: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
});

async fn exchange(
    target: &Target,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Body>,
) -> Result<Response<Incoming>> {
    let unreachable = |e: &dyn std::fmt::Display| Error::unavailable(format!("{}: {e}", target.uri));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(&e))?;
    tokio::spawn(connection);
    // While a body goes out, the server is silent for as long as that takes.
    let sends_little =
        http_body::Body::size_hint(request.body()).upper().is_some_and(|bytes| bytes < 1 << 20);
    let answer = sender.send_request(request);
    match sends_little {
        true => timeout(SILENT_AT_MOST, answer).await.map_err(|e| unreachable(&e))?,
        false => answer.await,
    }
    .map_err(|e| unreachable(&e))
}

/// A body as it comes.
pub fn chunks(body: Incoming) -> Chunks {
    let next = |mut body: Incoming| async move {
        loop {
            let frame = timeout(SILENT_AT_MOST, body.frame()).await;
            let frame = frame.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?;
            let Some(frame) = frame else { return Ok(None) };
            if let Ok(bytes) = frame.map_err(std::io::Error::other)?.into_data() {
                return Ok(Some((bytes, body)));
            }
        }
    };
    stream::try_unfold(body, next).boxed()
}

/// A short body as text.
pub async fn text(body: Incoming) -> Result<String> {
    let limited = http_body_util::Limited::new(body, ANSWER_BYTES_MAX).collect();
    let read = timeout(SILENT_AT_MOST, limited).await.map_err(|e| Error::unavailable(e.to_string()))?;
    let bytes = read.map_err(|e| Error::unavailable(e.to_string()))?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
