//! Lines between the agents of hosts, over TLS: both ends show certificates of the cloud's authority and go by the
//! names in them.

use crate::{Credentials, door::shown};
use async_trait::async_trait;
use base::{Error, Result};
use contracts::peers::{Line, Peer, Peers};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, mpsc},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, rustls::pki_types::ServerName};

/// Where compute hosts answer each other.
pub const LINES_PORT: u16 = 8798;

const CONNECTED_WITHIN: Duration = Duration::from_secs(10);
/// Lines that are open and not yet taken by the agent.
const WAITING_MAX: usize = 16;

pub struct Lines {
    directory: PathBuf,
    port: u16,
    answered: Mutex<mpsc::Receiver<(String, Line)>>,
    /// Ended when it is dropped.
    _listening: JoinSet<()>,
}

impl Lines {
    /// With the certificate in the directory; it is read again for each line, for it is renewed.
    pub async fn listen(directory: &Path, at: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(at).await.map_err(|e| Error::unavailable(format!("{at}: {e}")))?;
        let port = listener.local_addr()?.port();
        let (give, answered) = mpsc::channel(WAITING_MAX);
        let mut listening = JoinSet::new();
        listening.spawn(listen(listener, directory.to_path_buf(), give));
        Ok(Self { directory: directory.into(), port, answered: answered.into(), _listening: listening })
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

#[async_trait]
impl Peers for Lines {
    async fn reach(&self, peer: &Peer) -> Result<Line> {
        let unreachable = |why: String| Error::unavailable(format!("the host {}: {why}", peer.host));
        let name = ServerName::try_from(peer.host.clone())
            .map_err(|_| Error::bad_request(format!("'{}' is no host name", peer.host)))?;
        let config = Arc::new(Credentials::read(&self.directory)?.client()?);
        let connecting = async {
            let stream = TcpStream::connect((peer.address.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(config).connect(name, stream).await
        };
        match tokio::time::timeout(CONNECTED_WITHIN, connecting).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Err(_) => Err(unreachable("no answer".into())),
        }
    }

    async fn answer(&self) -> Result<(String, Line)> {
        self.answered.lock().await.recv().await.ok_or_else(|| Error::internal("nobody listens"))
    }
}

async fn listen(listener: TcpListener, directory: PathBuf, give: mpsc::Sender<(String, Line)>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "lines of other hosts are not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (directory, give) = (directory.clone(), give.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(CONNECTED_WITHIN, shake(stream, &directory)).await {
                Ok(Ok(line)) => drop(give.send(line).await),
                Ok(Err(error)) => tracing::info!(%error, "a line was refused"),
                Err(_) => tracing::info!("a line said nothing"),
            }
        });
    }
}

async fn shake(stream: TcpStream, directory: &Path) -> Result<(String, Line)> {
    stream.set_nodelay(true)?;
    let config = Arc::new(Credentials::read(directory)?.server()?);
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let peer = stream.get_ref().1.peer_certificates().and_then(|chain| shown(chain.first()?));
    let peer = peer.ok_or_else(|| Error::unauthorized("a host shows its certificate"))?;
    Ok((peer.name, Box::new(stream)))
}
