//! Lines within one process, by the names of pretended hosts.

use crate::peers::{Line, Peer, Peers};
use async_trait::async_trait;
use base::{Error, Result};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};
use tokio::sync::mpsc;

type Call = (String, Line);

/// Where all hosts of a test are found.
#[derive(Clone, Default)]
pub struct Exchange(Arc<Mutex<HashMap<String, mpsc::Sender<Call>>>>);

/// One host's end.
pub struct FakePeers {
    name: String,
    exchange: Exchange,
    calls: tokio::sync::Mutex<mpsc::Receiver<Call>>,
}

impl Exchange {
    pub fn host(&self, name: &str) -> Arc<FakePeers> {
        let (give, calls) = mpsc::channel(16);
        self.0.lock().insert(name.into(), give);
        Arc::new(FakePeers { name: name.into(), exchange: self.clone(), calls: calls.into() })
    }
}

#[async_trait]
impl Peers for FakePeers {
    async fn reach(&self, peer: &Peer) -> Result<Line> {
        let nobody = || Error::unavailable(format!("{} does not answer", peer.host));
        let to = self.exchange.0.lock().get(&peer.host).cloned().ok_or_else(nobody)?;
        let (here, there) = tokio::io::duplex(64 * 1024);
        to.send((self.name.clone(), Box::new(there))).await.map_err(|_| nobody())?;
        Ok(Box::new(here))
    }

    async fn answer(&self) -> Result<(String, Line)> {
        let call = self.calls.lock().await.recv().await;
        call.ok_or_else(|| Error::internal("the exchange is gone"))
    }
}
