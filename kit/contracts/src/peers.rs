//! Lines between agents of the same kind on different hosts, for bytes that are too many for the bus: a guest's disks,
//! its memory on its way. Each end knows the other by its certificate.

use async_trait::async_trait;
use base::Result;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

/// Another host: the name that its certificate has, and where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peer {
    pub host: String,
    pub address: String,
}

pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Bytes in both directions.
pub type Line = Box<dyn Duplex>;

#[async_trait]
pub trait Peers: Send + Sync {
    /// A line to the agent of another host. `Unavailable`: nobody answers there.
    async fn reach(&self, peer: &Peer) -> Result<Line>;

    /// The next line that another host's agent opens to this one, and that host's name.
    async fn answer(&self) -> Result<(String, Line)>;
}
