//! The door of a control node: where hosts join, renew their certificates and fetch and bring images, and where the
//! operator's command line asks about hosts. HTTPS; hosts are known by their certificates.

use crate::{
    Credentials, Hosts, Token,
    authority::{self, hex},
    body::{BodyReader, streamed},
    client::{Joined, Joining, Renewal},
    model::{HostRow, HostState},
    store, tls,
};
use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use base::{Context, Error, ErrorKind, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use contracts::hosts::Left;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use serde::{Deserialize, Serialize};
use std::{future::Future, net::IpAddr, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use x509_cert::der::Decode;

pub const DOOR_PORT: u16 = 8799;

/// Where a request has its context, as JSON in base64.
pub const CONTEXT_HEADER: &str = "x-context";
pub const OPERATOR_HEADER: &str = "x-operator";

/// Roles that a process may have on a host that joins.
pub const ROLES: [&str; 3] = ["compute", "network", "storage"];

/// Who says nothing in the handshake is not waited for.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How long the rest of a refused body is still read.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);

/// The host that a connection's certificate names, if it showed one.
#[derive(Clone, Debug, Default)]
struct Peer(Option<Shown>);

/// What a certificate says of its host.
#[derive(Clone, Debug)]
pub struct Shown {
    pub name: String,
    serial: String,
}

#[derive(Serialize, Deserialize)]
pub struct NewToken {
    pub minutes: Option<u64>,
    pub roles: Vec<String>,
}

#[derive(Serialize, Deserialize)]
pub struct Made {
    pub token: String,
}

/// A host as the operator sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostView {
    pub name: String,
    pub roles: Vec<String>,
    pub address: String,
    pub version: String,
    pub state: String,
    pub up: bool,
    /// Since its last sign of life; none: there was none.
    pub seconds_silent: Option<u64>,
    /// On a host that is emptied.
    pub left: Vec<Left>,
}

#[derive(Serialize, Deserialize)]
pub struct NewState {
    pub state: String,
}

/// Serves until `end`.
pub async fn serve(
    hosts: Arc<Hosts>,
    listener: TcpListener,
    credentials: &Credentials,
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(credentials.server()?));
    let router = router(hosts);
    tokio::pin!(end);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut end => return Ok(()),
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the door cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await;
            let Ok(Ok(stream)) = shaken else { return };
            let shown = stream.get_ref().1.peer_certificates().and_then(|chain| shown(chain.first()?));
            let service = TowerToHyperService::new(router.layer(Extension(Peer(shown))));
            let served = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection at the door ended");
            }
        });
    }
}

/// Name and serial number of a certificate; that our authority made it is checked already.
pub fn shown(certificate: &[u8]) -> Option<Shown> {
    let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
    let subject = parsed.tbs_certificate.subject.to_string();
    let name = subject.split(',').find_map(|part| part.trim().strip_prefix("CN="))?.to_string();
    Some(Shown { name, serial: hex(parsed.tbs_certificate.serial_number.as_bytes()) })
}

fn router(hosts: Arc<Hosts>) -> Router {
    Router::new()
        .route("/v1/join", post(join))
        .route("/v1/renew", post(renew))
        .route("/v1/images/{id}", get(image).put(bring_image))
        .route("/v1/tokens", post(make_token))
        .route("/v1/hosts", get(list))
        .route("/v1/hosts/{name}/state", put(set_state))
        .route("/v1/hosts/{name}", get(show).delete(remove))
        .with_state(hosts)
}

type Answer<T> = std::result::Result<T, Refusal>;

/// The error itself crosses: the other side is ours.
struct Refusal(Error);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.0.kind {
            ErrorKind::BadRequest => StatusCode::BAD_REQUEST,
            ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self.0)).into_response()
    }
}

async fn join(State(hosts): State<Arc<Hosts>>, Json(joining): Json<Joining>) -> Answer<Json<Joined>> {
    Ok(Json(hosts.join(joining).await?))
}

async fn renew(
    State(hosts): State<Arc<Hosts>>,
    Extension(peer): Extension<Peer>,
    Json(renewal): Json<Renewal>,
) -> Answer<Json<Joined>> {
    let host = hosts.known(&peer).await?;
    Ok(Json(hosts.renew(host, renewal).await?))
}

async fn image(
    State(hosts): State<Arc<Hosts>>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer<Body> {
    hosts.known(&peer).await?;
    let (cx, images) = (context(&headers)?, hosts.images.clone());
    Ok(streamed(move |mut into| async move { images.download(&cx, &id, &mut into).await }).await?)
}

async fn bring_image(
    State(hosts): State<Arc<Hosts>>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer<StatusCode> {
    hosts.known(&peer).await?;
    let (cx, mut from) = (context(&headers)?, BodyReader::new(body));
    if let Err(error) = hosts.image_sink.upload(&cx, &id, &mut from).await {
        tokio::spawn(read_on(from));
        return Err(error.into());
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Whoever still sends must find the connection open to read why he is refused.
async fn read_on(mut from: BodyReader) {
    let rest = tokio::time::timeout(REFUSED_WITHIN, tokio::io::copy(&mut from, &mut tokio::io::sink())).await;
    tracing::debug!(?rest, "what came after a refusal");
}

async fn make_token(
    State(hosts): State<Arc<Hosts>>,
    headers: HeaderMap,
    Json(wanted): Json<NewToken>,
) -> Answer<Json<Made>> {
    hosts.is_operator(&headers)?;
    check_roles(&wanted.roles)?;
    Ok(Json(Made { token: hosts.make_token(wanted.minutes, wanted.roles).await?.to_string() }))
}

async fn list(State(hosts): State<Arc<Hosts>>, headers: HeaderMap) -> Answer<Json<Vec<HostView>>> {
    hosts.is_operator(&headers)?;
    let rows = hosts.read(store::hosts).await?;
    let mut views = Vec::new();
    for row in rows {
        views.push(hosts.view(row).await?);
    }
    Ok(Json(views))
}

async fn show(
    State(hosts): State<Arc<Hosts>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Answer<Json<HostView>> {
    hosts.is_operator(&headers)?;
    let row = hosts.read(move |tx| tx.find::<HostRow>(&name)?.ok_or_else(|| missing(&name))).await?;
    Ok(Json(hosts.view(row).await?))
}

async fn set_state(
    State(hosts): State<Arc<Hosts>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Json(wanted): Json<NewState>,
) -> Answer<Json<HostView>> {
    hosts.is_operator(&headers)?;
    let state = match HostState::parse(&wanted.state) {
        Some(state @ (HostState::Active | HostState::Draining)) => state,
        _ => return Err(Error::bad_request("A host is made active or draining.").into()),
    };
    // In this order whoever sees a host that is emptied sees one to which nothing comes.
    let row = match state {
        HostState::Active => {
            hosts.set_state(&name, state).await?;
            hosts.open_again(&name).await?;
            hosts.set_state(&name, state).await?
        }
        _ => {
            hosts.exists(&name).await?;
            hosts.close(&name).await?;
            hosts.set_state(&name, state).await?
        }
    };
    Ok(Json(hosts.view(row).await?))
}

#[derive(Deserialize)]
struct Removal {
    #[serde(default)]
    force: bool,
}

async fn remove(
    State(hosts): State<Arc<Hosts>>,
    Path(name): Path<String>,
    Query(removal): Query<Removal>,
    headers: HeaderMap,
) -> Answer<StatusCode> {
    hosts.is_operator(&headers)?;
    if !removal.force {
        hosts.check_empty(&name).await?;
    }
    hosts.set_state(&name, HostState::Removed).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn context(headers: &HeaderMap) -> Result<Context> {
    let wrong = || Error::bad_request("the request has no context");
    let text = headers.get(CONTEXT_HEADER).ok_or_else(wrong)?;
    let json = STANDARD.decode(text.as_bytes()).map_err(|_| wrong())?;
    serde_json::from_slice(&json).map_err(|_| wrong())
}

fn check_roles(roles: &[String]) -> Result<()> {
    match roles.iter().find(|role| !ROLES.contains(&role.as_str())) {
        None => Ok(()),
        Some(role) => {
            Err(Error::bad_request(format!("'{role}' is no role of a host that joins: {}", ROLES.join(", "))))
        }
    }
}

/// What may be a host's name: it goes into certificates, queues and file names.
fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let edges = |c: char| c == '-' || c == '.';
    let wrong = name.is_empty() || name.len() > 63 || !name.chars().all(fits);
    match wrong || name.starts_with(edges) || name.ends_with(edges) || name.ends_with(".ferrostack") {
        false => Ok(()),
        true => Err(Error::bad_request(format!("'{name}' is no name for a host"))),
    }
}

impl Hosts {
    async fn join(&self, joining: Joining) -> Result<Joined> {
        check_name(&joining.name)?;
        check_roles(&joining.roles)?;
        if joining.roles.is_empty() {
            return Err(Error::bad_request("A host that joins has a role."));
        }
        let token: Token = joining.token.parse()?;
        self.use_token(&token, &joining.roles).await?;
        let key = STANDARD.decode(&joining.public_key).map_err(|_| Error::bad_request("The public key."))?;
        let issued = self.certify(&joining.name, joining.address, key)?;
        let now = self.clock.now();
        let row = HostRow {
            name: joining.name.clone(),
            roles: joining.roles,
            address: joining.address.to_string(),
            version: joining.version,
            state: HostState::Active,
            serial: issued.serial.clone(),
            serial_before: String::new(),
            joined_at: now,
            last_seen_at: None,
        };
        // A machine that was set up anew joins again under its name; its old certificates end with that.
        self.write(move |tx| match tx.find::<HostRow>(&row.name)? {
            Some(_) => tx.update(&row).map(drop),
            None => tx.insert(&row),
        })
        .await?;
        tracing::info!(host = joining.name, "joined");
        Ok(self.joined(issued))
    }

    async fn renew(&self, mut host: HostRow, renewal: Renewal) -> Result<Joined> {
        let key = STANDARD.decode(&renewal.public_key).map_err(|_| Error::bad_request("The public key."))?;
        let address = host.address.parse().map_err(|_| Error::internal("a host's address"))?;
        let issued = self.certify(&host.name, address, key)?;
        host.serial_before = std::mem::replace(&mut host.serial, issued.serial.clone());
        self.write(move |tx| tx.update(&host)).await?;
        Ok(self.joined(issued))
    }

    fn certify(&self, name: &str, address: IpAddr, key: Vec<u8>) -> Result<authority::Issued> {
        let span = Duration::from_secs(3600 * self.options.certificate_hours.max(1));
        self.authority.for_host(name, address, key, self.clock.now(), span)
    }

    fn joined(&self, issued: authority::Issued) -> Joined {
        Joined {
            authority: self.authority.certificate.clone(),
            certificate: issued.certificate,
            certificate_seconds: 3600 * self.options.certificate_hours.max(1),
            common: self.common.clone(),
        }
    }

    /// The host that a connection comes from, unless it was removed or its certificate replaced.
    async fn known(&self, peer: &Peer) -> Result<HostRow> {
        let shown =
            peer.0.clone().ok_or_else(|| Error::unauthorized("A host shows its certificate here."))?;
        let name = shown.name.clone();
        let found = self.read(move |tx| tx.find::<HostRow>(&name)).await?;
        let foreign = || Error::forbidden(format!("The host {} is no part of this cloud.", shown.name));
        let host = found.filter(|host| host.state != HostState::Removed).ok_or_else(foreign)?;
        match [&host.serial, &host.serial_before].contains(&&shown.serial) {
            true => Ok(host),
            false => Err(Error::forbidden(format!("The host {} has another certificate.", host.name))),
        }
    }

    fn is_operator(&self, headers: &HeaderMap) -> Result<()> {
        let said = headers.get(OPERATOR_HEADER).map(|said| crate::tokens::hex_sha256(said.as_bytes()));
        // Of hashes nobody learns by the time of a comparison.
        let known = crate::tokens::hex_sha256(self.operator.expose().as_bytes());
        match said {
            Some(said) if !self.operator.is_empty() && said == known => Ok(()),
            _ => Err(Error::unauthorized("This is the operator's alone.")),
        }
    }

    async fn exists(&self, name: &str) -> Result<()> {
        let name = name.to_string();
        self.read(move |tx| movable(tx, &name).map(drop)).await
    }

    async fn set_state(&self, name: &str, state: HostState) -> Result<HostRow> {
        let name = name.to_string();
        self.write(move |tx| {
            let mut row = match state {
                HostState::Removed => tx.find::<HostRow>(&name)?.ok_or_else(|| missing(&name))?,
                _ => movable(tx, &name)?,
            };
            row.state = state;
            tx.update(&row)?;
            Ok(row)
        })
        .await
    }

    async fn view(&self, row: HostRow) -> Result<HostView> {
        let silent = row.last_seen_at.map(|seen| self.clock.now().since(seen).as_secs());
        let draining = row.state == HostState::Draining;
        let left = if draining { self.left(&row.name).await? } else { Vec::new() };
        Ok(HostView {
            up: silent.is_some_and(|seconds| seconds < self.options.down_after_seconds),
            seconds_silent: silent,
            state: if draining && left.is_empty() { "drained" } else { row.state.as_str() }.into(),
            name: row.name,
            roles: row.roles,
            address: row.address,
            version: row.version,
            left,
        })
    }
}

fn missing(name: &str) -> Error {
    Error::not_found(format!("No host {name} has joined."))
}

/// A host that is part of the cloud.
fn movable(tx: &mut db::Tx, name: &str) -> Result<HostRow> {
    let row = tx.find::<HostRow>(name)?.ok_or_else(|| missing(name))?;
    match row.state {
        HostState::Removed => {
            Err(Error::conflict(format!("The host {name} was removed; it may join again.")))
        }
        _ => Ok(row),
    }
}

/// For the operator's command line: the door of this very machine.
pub fn authority_of(directory: &std::path::Path) -> Result<String> {
    let path = directory.join(tls::AUTHORITY_FILE);
    std::fs::read_to_string(&path).map_err(|e| Error::not_found(format!("{}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["h1", "compute-1.example.org", "A"] {
            check_name(good).unwrap();
        }
        for wrong in ["", "a b", "a/b", "..", "-a", "a.", "control.ferrostack", "ä", &"a".repeat(64), "a\nb"]
        {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn roles() {
        check_roles(&["compute".into(), "network".into()]).unwrap();
        assert!(check_roles(&["control".into()]).is_err());
    }
}
