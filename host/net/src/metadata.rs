//! The metadata proxy: listens where guests look for 169.254.169.254, says who asks and signs it, and hands the
//! request to nova's metadata service.

use base::{Error, Result, Secret};
use contracts::agents::network::Network;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full, Limited, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONNECTION, HOST, HeaderName, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::{
    collections::HashMap,
    fmt::Write,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};

const BODY_BYTES_MAX: usize = 64 * 1024;
/// Guests of one network that are answered at once; more wait.
const CONNECTIONS_MAX: usize = 100;
const UPSTREAM_PATIENCE: Duration = Duration::from_secs(60);
const HEADER_PATIENCE: Duration = Duration::from_secs(30);

/// Where nova's metadata service is, and the secret by which it knows that we speak.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MetadataOptions {
    /// `127.0.0.1:8775`
    pub address: String,
    pub shared_secret: Secret,
}

/// The instance behind an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    pub instance_id: String,
    pub project_id: String,
}

/// Who is who, kept up to date by converging and read by every request.
#[derive(Clone, Default)]
pub struct Directory(Arc<RwLock<HashMap<String, HashMap<IpAddr, Guest>>>>);

impl Directory {
    pub fn set(&self, network_id: &str, network: &Network) {
        let guests = network.hosts.iter().filter(|host| !host.device_id.is_empty()).flat_map(|host| {
            let guest = Guest { instance_id: host.device_id.clone(), project_id: host.project_id.clone() };
            host.addresses.iter().map(move |address| (*address, guest.clone()))
        });
        self.0.write().insert(network_id.into(), guests.collect());
    }

    pub fn keep(&self, wanted: impl Fn(&str) -> bool) {
        self.0.write().retain(|network_id, _| wanted(network_id));
    }

    /// A router's networks do not overlap: an address is one guest.
    fn find(&self, networks: &[String], address: IpAddr) -> Option<Guest> {
        let directory = self.0.read();
        networks.iter().find_map(|id| directory.get(id)?.get(&address).cloned())
    }
}

/// Whose guests ask: those of a network, or of a router's networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub header: &'static str,
    pub id: String,
    pub networks: Vec<String>,
}

/// A proxy in one namespace; it ends when dropped.
pub struct Proxy {
    pub place: Place,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub async fn start(
        namespace: &Path,
        address: SocketAddr,
        place: Place,
        directory: Directory,
        options: MetadataOptions,
    ) -> Result<Self> {
        let listener = crate::netns::within(namespace, move || {
            let listener = std::net::TcpListener::bind(address)
                .map_err(|e| Error::internal(format!("metadata proxy on {address}: {e}")))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
        .await?;
        let listener = TcpListener::from_std(listener)?;
        let serving = Arc::new(Serving { place: place.clone(), directory, options });
        Ok(Self { place, task: tokio::spawn(serving.serve(listener)) })
    }

    pub fn runs(&self) -> bool {
        !self.task.is_finished()
    }

    /// Ends it and returns when its address is free.
    pub async fn end(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

struct Serving {
    place: Place,
    directory: Directory,
    options: MetadataOptions,
}

type Body = BoxBody<Bytes, hyper::Error>;

impl Serving {
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        // Ends with the proxy: guests must not go on talking to a place that is gone.
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "metadata proxy cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            let serving = self.clone();
            connections.spawn(async move {
                let service = service_fn(|request| serving.clone().answer(peer.ip(), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_PATIENCE)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                if let Err(error) = connection {
                    tracing::debug!(%peer, %error, "metadata connection ended");
                }
                drop(permit);
            });
        }
    }

    async fn answer(
        self: Arc<Self>,
        peer: IpAddr,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Error> {
        let Some(guest) = self.directory.find(&self.place.networks, peer) else {
            tracing::warn!(%peer, place = self.place.id, "metadata asked from an address of no instance");
            return Ok(plain(StatusCode::NOT_FOUND, "404 Not Found"));
        };
        match tokio::time::timeout(UPSTREAM_PATIENCE, self.forward(peer, guest, request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                tracing::warn!(%peer, place = self.place.id, %error, "metadata service not reached");
                Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "503 Service Unavailable"))
            }
            Err(_) => Ok(plain(StatusCode::GATEWAY_TIMEOUT, "504 Gateway Timeout")),
        }
    }

    async fn forward(
        &self,
        peer: IpAddr,
        guest: Guest,
        request: Request<Incoming>,
    ) -> Result<Response<Body>> {
        let (mut head, body) = request.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
        let Ok(body) = body.map(|body| body.to_bytes()) else {
            return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE, "413 Payload Too Large"));
        };
        // Only ours may say who asks.
        for name in identity_headers() {
            head.headers.remove(name);
        }
        let signature = sign(&self.options.shared_secret, &guest.instance_id)?;
        let identity = [
            ("x-forwarded-for", peer.to_string()),
            ("x-instance-id", guest.instance_id),
            ("x-tenant-id", guest.project_id),
            ("x-instance-id-signature", signature),
            (self.place.header, self.place.id.clone()),
        ];
        for (name, value) in identity {
            let value = HeaderValue::from_str(&value).map_err(|e| Error::internal(format!("{name}: {e}")))?;
            head.headers.insert(HeaderName::from_static(name), value);
        }
        head.headers.remove(CONNECTION);
        if !head.headers.contains_key(HOST) {
            head.headers.insert(HOST, HeaderValue::from_static("169.254.169.254"));
        }
        head.version = hyper::Version::HTTP_11;
        let stream = TcpStream::connect(&self.options.address).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(anyhow)?;
        tokio::spawn(connection);
        let response =
            sender.send_request(Request::from_parts(head, Full::new(body))).await.map_err(anyhow)?;
        Ok(response.map(|body| body.boxed()))
    }
}

fn identity_headers() -> [&'static str; 6] {
    [
        "x-forwarded-for",
        "x-instance-id",
        "x-tenant-id",
        "x-instance-id-signature",
        "x-neutron-network-id",
        "x-neutron-router-id",
    ]
}

/// HMAC-SHA256 of the instance's id, in hex, as nova checks it.
pub fn sign(secret: &Secret, instance_id: &str) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
        .map_err(|e| Error::internal(format!("metadata secret: {e}")))?;
    mac.update(instance_id.as_bytes());
    Ok(mac.finalize().into_bytes().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn anyhow(error: hyper::Error) -> Error {
    Error::unavailable(format!("metadata service: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value that Python's hmac gives for the same.
    #[test]
    fn the_signature_is_novas() {
        let signature = sign(&Secret::new("secret"), "8a1f5ae0-0e5c-4d7c-8a5b-2c0d6a3b7f11").unwrap();
        assert_eq!(signature, "c0446f0c013e9aa51447053d267bedff5ff38087159eeffbcd1df23efe4a62ba");
    }

    #[test]
    fn an_address_is_looked_up_in_its_networks_only() {
        let network = |device: &str| -> Network {
            serde_json::from_value(serde_json::json!({"mtu": 1450, "kind": "local", "hosts": [
                {"port_id": "p", "mac": "fa:16:3e:00:00:05", "addresses": ["10.0.0.5"], "device_id": device,
                 "project_id": "t"},
                {"port_id": "q", "mac": "fa:16:3e:00:00:06", "addresses": ["10.0.0.6"]}]}))
            .unwrap()
        };
        let directory = Directory::default();
        directory.set("n1", &network("one"));
        directory.set("n2", &network("two"));
        let find = |network: &str, address: &str| {
            directory.find(&[network.into()], address.parse().unwrap()).map(|guest| guest.instance_id)
        };
        assert_eq!(find("n1", "10.0.0.5").as_deref(), Some("one"));
        assert_eq!(find("n2", "10.0.0.5").as_deref(), Some("two"));
        assert_eq!(find("n1", "10.0.0.6"), None, "a port without an instance");
        assert_eq!(find("n3", "10.0.0.5"), None);
        directory.keep(|id| id == "n2");
        assert_eq!(find("n1", "10.0.0.5"), None);
    }
}
