//! Guests on their way between this host and others: who may ask for what goes with them, and the sockets at which the
//! hypervisors find each other.

use crate::link::Link;
use base::{Error, Result};
use contracts::peers::Peer;
use host_virt::Channel;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    os::unix::fs::chown,
    path::{Path, PathBuf},
};
use tokio::{
    net::{UnixListener, UnixStream},
    task::JoinSet,
};

#[derive(Default)]
pub struct Travels {
    /// Running guests by where they go: told by nova before, for the other host asks first.
    leaving: Mutex<HashMap<String, String>>,
    /// Guests that come running, by where from.
    arriving: Mutex<HashMap<String, String>>,
    ways: Mutex<HashMap<String, Way>>,
}

/// The sockets of a guest that leaves. Dropped, they are closed and removed.
struct Way {
    sockets: Vec<PathBuf>,
    _carrying: JoinSet<()>,
}

impl Drop for Way {
    fn drop(&mut self) {
        for socket in &self.sockets {
            remove_socket(socket);
        }
    }
}

impl Travels {
    pub fn leaves(&self, uuid: &str, to: &str) {
        self.leaving.lock().insert(uuid.into(), to.into());
    }

    pub fn goes_to(&self, uuid: &str, host: &str) -> bool {
        self.leaving.lock().get(uuid).is_some_and(|to| to == host)
    }

    /// A guest is expected; what an earlier one has left of its sockets goes.
    pub fn expect(&self, uuid: &str, from: &str, channels: &[Channel]) {
        for channel in channels.iter().filter(|channel| channel.arriving == channel.leaving) {
            remove_socket(&channel.arriving);
        }
        self.arriving.lock().insert(uuid.into(), from.into());
    }

    pub fn comes_from(&self, uuid: &str, host: &str) -> bool {
        self.arriving.lock().get(uuid).is_some_and(|from| from == host)
    }

    /// Carries what the hypervisor says into its channels to the other host, until [`Travels::end`].
    pub fn lead(&self, uuid: &str, channels: Vec<Channel>, link: &Link, to: &Peer) -> Result<()> {
        let mut ways = self.ways.lock();
        ways.remove(uuid);
        let mut way = Way { sockets: Vec::new(), _carrying: JoinSet::new() };
        for channel in channels {
            remove_socket(&channel.leaving);
            let listener = UnixListener::bind(&channel.leaving)
                .map_err(|e| Error::internal(format!("{}: {e}", channel.leaving.display())))?;
            way.sockets.push(channel.leaving.clone());
            if channel.user.is_some() {
                chown(&channel.leaving, channel.user, None)?;
            }
            let (link, to, uuid) = (link.clone(), to.clone(), uuid.to_string());
            way._carrying.spawn(listen(listener, link, to, uuid, channel.name));
        }
        ways.insert(uuid.into(), way);
        Ok(())
    }

    /// The guest is on its way no more.
    pub fn end(&self, uuid: &str) {
        self.ways.lock().remove(uuid);
        self.leaving.lock().remove(uuid);
    }

    /// Nor is it expected.
    pub fn forget(&self, uuid: &str, channels: &[Channel]) {
        self.end(uuid);
        if self.arriving.lock().remove(uuid).is_some() {
            for channel in channels.iter().filter(|channel| channel.arriving == channel.leaving) {
                remove_socket(&channel.arriving);
            }
        }
    }
}

async fn listen(listener: UnixListener, link: Link, to: Peer, uuid: String, name: &'static str) {
    let mut carried = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (link, to, uuid) = (link.clone(), to.clone(), uuid.clone());
                carried.spawn(async move {
                    if let Err(error) = carry(stream, &link, &to, &uuid, name).await {
                        tracing::warn!(%error, uuid, name, "a channel broke");
                    }
                });
            }
            Err(error) => tracing::warn!(%error, uuid, name, "a channel is not accepted"),
        }
        while carried.try_join_next().is_some() {}
    }
}

async fn carry(mut stream: UnixStream, link: &Link, to: &Peer, uuid: &str, name: &str) -> Result<()> {
    let mut line = link.channel(to, uuid, name).await?;
    let carried = tokio::io::copy_bidirectional(&mut stream, &mut line).await;
    tracing::debug!(uuid, name, ?carried, "a channel ended");
    Ok(())
}

fn remove_socket(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "a socket stays");
        }
        _ => {}
    }
}
