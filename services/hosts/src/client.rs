//! A host's side: joining, the door behind which images are, and what a host remembers of its cloud.

use crate::{
    Common, Credentials, Token,
    body::{BodyReader, streamed},
    door::{CONTEXT_HEADER, HostView, Made, NewState, NewToken, OPERATOR_HEADER},
    tls,
};
use async_trait::async_trait;
use axum::{body::Body, http};
use base::{Clock, Context, Error, ErrorKind, Json, Result, Secret, Timestamp};
use base64::{Engine, engine::general_purpose::STANDARD};
use contracts::compute::{ImageSink, ImageSource};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, rustls::ClientConfig};

const CONNECTED_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 1 << 20;
const MEMBER_FILE: &str = "member.json";

#[derive(Serialize, Deserialize)]
pub struct Joining {
    pub token: String,
    pub name: String,
    pub roles: Vec<String>,
    /// Where other hosts reach it.
    pub address: IpAddr,
    pub version: String,
    /// An uncompressed point of P-256 in base64.
    pub public_key: String,
}

#[derive(Serialize, Deserialize)]
pub struct Renewal {
    pub public_key: String,
}

#[derive(Serialize, Deserialize)]
pub struct Joined {
    pub authority: String,
    pub certificate: String,
    pub certificate_seconds: u64,
    pub common: Common,
}

/// Who a host is in its cloud.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    pub name: String,
    pub roles: Vec<String>,
    pub address: IpAddr,
}

/// What a host that has joined remembers, below its state directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Member {
    #[serde(flatten)]
    pub identity: Identity,
    #[serde(flatten)]
    pub common: Common,
    /// When a new certificate is asked for.
    pub renew_at: Timestamp,
}

impl Member {
    /// `NotFound` when this machine has not joined.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(MEMBER_FILE);
        let text = fs::read(&path).map_err(|_| {
            Error::not_found("this machine is no host of a cloud yet: ferrostack join URL --token TOKEN")
        })?;
        serde_json::from_slice(&text).map_err(|e| Error::internal(format!("{}: {e}", path.display())))
    }

    fn keep(&self, directory: &Path) -> Result<()> {
        tls::write_private(&directory.join(MEMBER_FILE), &serde_json::to_string_pretty(self)?)
    }

    /// The doors of its cloud, through which it comes with its certificate.
    pub fn door(&self, directory: &Path) -> Result<Door> {
        let config = Credentials::read(directory)?.client()?;
        Ok(Door { urls: self.common.doors.clone(), config: Arc::new(config), operator: None })
    }

    /// Asks for a new certificate, for the same key, when it is time. True: there is one.
    pub async fn renew_in_time(&mut self, directory: &Path, clock: &Clock) -> Result<bool> {
        if clock.now() < self.renew_at {
            return Ok(false);
        }
        let mut credentials = Credentials::read(directory)?;
        let renewal = Renewal { public_key: STANDARD.encode(credentials.public_key()?) };
        let joined: Joined = self.door(directory)?.ask("POST", "/v1/renew", Some(&renewal)).await?;
        credentials.certificate = joined.certificate;
        credentials.write(directory)?;
        self.common = joined.common;
        self.renew_at = renew_at(clock, joined.certificate_seconds);
        self.keep(directory)?;
        Ok(true)
    }
}

fn renew_at(clock: &Clock, seconds: u64) -> Timestamp {
    clock.now().plus(Duration::from_secs(seconds * 2 / 3))
}

/// Makes this machine a host of the cloud behind the URL, and keeps what it is given in the directory.
pub async fn join(
    url: &str,
    token: &str,
    identity: Identity,
    directory: &Path,
    clock: &Clock,
) -> Result<Member> {
    let token: Token = token.parse()?;
    let config = tls::client_by_fingerprint(&token.fingerprint)?;
    let door = Door { urls: vec![url.into()], config: Arc::new(config), operator: None };
    let key = rcgen::KeyPair::generate().map_err(|e| Error::internal(format!("key: {e}")))?;
    let joining = Joining {
        token: token.to_string(),
        name: identity.name.clone(),
        roles: identity.roles.clone(),
        address: identity.address,
        version: env!("CARGO_PKG_VERSION").into(),
        public_key: STANDARD.encode(key.public_key_raw()),
    };
    let joined: Joined = door.ask("POST", "/v1/join", Some(&joining)).await?;
    Credentials {
        authority: joined.authority,
        certificate: joined.certificate,
        key: key.serialize_pem().into(),
    }
    .write(directory)?;
    let renew_at = renew_at(clock, joined.certificate_seconds);
    let member = Member { identity, common: joined.common, renew_at };
    member.keep(directory)?;
    Ok(member)
}

/// The doors of control nodes, asked in turn until one is there.
#[derive(Clone)]
pub struct Door {
    urls: Vec<String>,
    config: Arc<ClientConfig>,
    operator: Option<Secret>,
}

impl Door {
    /// For the operator's command line on a control node.
    pub fn of_operator(url: String, directory: &Path, operator: Secret) -> Result<Self> {
        let config = tls::client_of(&crate::door::authority_of(directory)?)?;
        Ok(Self { urls: vec![url], config: Arc::new(config), operator: Some(operator) })
    }

    pub async fn hosts(&self) -> Result<Vec<HostView>> {
        self.ask("GET", "/v1/hosts", None::<&Json>).await
    }

    pub async fn new_token(&self, minutes: Option<u64>, roles: Vec<String>) -> Result<String> {
        let made: Made = self.ask("POST", "/v1/tokens", Some(&NewToken { minutes, roles })).await?;
        Ok(made.token)
    }

    pub async fn set_state(&self, name: &str, state: &str) -> Result<HostView> {
        self.ask("PUT", &format!("/v1/hosts/{name}/state"), Some(&NewState { state: state.into() })).await
    }

    pub async fn host(&self, name: &str) -> Result<HostView> {
        self.ask("GET", &format!("/v1/hosts/{name}"), None::<&Json>).await
    }

    /// `force`: whatever is lost with it.
    pub async fn remove(&self, name: &str, force: bool) -> Result<()> {
        let path = format!("/v1/hosts/{name}?force={force}");
        self.send("DELETE", &path, &[], Body::empty()).await.map(drop)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T> {
        let body = body.map(serde_json::to_string).transpose()?.map_or_else(Body::empty, Body::from);
        let answer = self.send(method, path, &[("content-type", "application/json".into())], body).await?;
        let bytes = axum::body::to_bytes(answer.into_body(), ANSWER_BYTES_MAX).await;
        let bytes =
            bytes.map_err(|e| Error::timeout(format!("the answer of the control node broke off: {e}")))?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// A success, its body still to be read.
    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        body: Body,
    ) -> Result<http::Response<Body>> {
        let stream = self.connect().await?;
        let broken = |e: hyper::Error| Error::timeout(format!("{method} {path}: {e}"));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection);
        let mut request = http::Request::builder().method(method).uri(path).header("host", "control");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(operator) = &self.operator {
            request = request.header(OPERATOR_HEADER, operator.expose());
        }
        let request = request.body(body).map_err(|e| Error::internal(format!("{method} {path}: {e}")))?;
        let answer = sender.send_request(request).await.map_err(broken)?;
        if answer.status().is_success() {
            return Ok(answer.map(Body::new));
        }
        let status = answer.status();
        let bytes = answer.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let unreadable = |_| Error::new(ErrorKind::Internal, format!("{method} {path}: status {status}"));
        Err(serde_json::from_slice(&bytes).map_err(unreadable)?)
    }

    async fn connect(&self) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut last = Error::bad_request("no address of a control node");
        for url in &self.urls {
            let shaken = tokio::time::timeout(CONNECTED_WITHIN, self.connect_to(url)).await;
            match shaken {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = Error::unavailable(format!("{url} does not answer")),
            }
        }
        Err(last)
    }

    async fn connect_to(&self, url: &str) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let authority = url.strip_prefix("https://").map(|rest| rest.trim_end_matches('/'));
        let wrong = || Error::bad_request(format!("'{url}' is no address like https://control:8799"));
        let authority = authority.filter(|rest| !rest.is_empty() && !rest.contains('/')).ok_or_else(wrong)?;
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address =
            if has_port { authority.to_string() } else { format!("{authority}:{}", crate::DOOR_PORT) };
        let unreachable = |e: std::io::Error| Error::unavailable(format!("{url}: {e}"));
        let stream = TcpStream::connect(&address).await.map_err(unreachable)?;
        let connector = TlsConnector::from(self.config.clone());
        connector.connect(tls::control_name(), stream).await.map_err(unreachable)
    }
}

/// Images over the door, for the agents of a host.
pub struct RemoteImages {
    member: Member,
    directory: PathBuf,
}

impl RemoteImages {
    pub fn new(member: Member, directory: &Path) -> Self {
        Self { member, directory: directory.to_path_buf() }
    }
}

fn context_header(cx: &Context) -> Result<(&'static str, String)> {
    Ok((CONTEXT_HEADER, STANDARD.encode(serde_json::to_vec(cx)?)))
}

#[async_trait]
impl ImageSource for RemoteImages {
    async fn download(
        &self,
        cx: &Context,
        image_id: &str,
        into: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        let path = format!("/v1/images/{image_id}");
        let door = self.member.door(&self.directory)?;
        let answer = door.send("GET", &path, &[context_header(cx)?], Body::empty()).await?;
        let broken = |e| Error::unavailable(format!("image {image_id} broke off: {e}"));
        let mut from = BodyReader::new(answer.into_body());
        tokio::io::copy(&mut from, into).await.map_err(broken)?;
        Ok(into.flush().await?)
    }
}

#[async_trait]
impl ImageSink for RemoteImages {
    async fn upload(
        &self,
        cx: &Context,
        image_id: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<()> {
        let path = format!("/v1/images/{image_id}");
        let door = self.member.door(&self.directory)?;
        // The reader is borrowed and a body is not: what is read goes through a pipe, whose end says how it went.
        let (tell, told) = tokio::sync::oneshot::channel::<Result<()>>();
        let (mut write, mut read) = tokio::io::duplex(1 << 20);
        let body = streamed(move |mut into| async move {
            tokio::io::copy(&mut read, &mut into).await?;
            told.await.unwrap_or_else(|_| Err(Error::internal("the upload was given up")))
        });
        let copying = async move {
            let copied = copy(from, &mut write).await;
            let failure = copied.as_ref().err().cloned();
            drop(write);
            let _ = tell.send(copied);
            failure.map_or(Ok(()), Err)
        };
        let sending = async {
            let body = body.await?;
            door.send("PUT", &path, &[context_header(cx)?], body).await.map(drop)
        };
        let (copied, sent) = tokio::join!(copying, sending);
        sent.and(copied)
    }
}

async fn copy(from: &mut (dyn AsyncRead + Send + Unpin), into: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        // Nobody reads any more: why, the other side says.
        if into.write_all(&buffer[..count]).await.is_err() {
            return Ok(());
        }
    }
}
