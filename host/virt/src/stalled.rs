//! Guests whose disk does not answer. QEMU stops a guest at the first read or write that fails on a disk over the
//! network; it is let go again and again until the disk is back, when QEMU repeats what failed. So the guest does not
//! see that a storage host started again, or that its volume was cut off for the moment in which it grew.

use crate::rpc::{Args, Client, DomainRef, LifecycleEvent, Procedure};
use base::Result;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Notify, broadcast};

/// Libvirt's numbers.
const LIST_PAUSED: u32 = 32;
pub const STATE_PAUSED: i32 = 3;
pub const REASON_IO_ERROR: i32 = 5;
pub const EVENT_SUSPENDED: i32 = 3;
pub const DETAIL_IO_ERROR: i32 = 2;

const CALL_PATIENCE: Duration = Duration::from_secs(30);
const TRY_EVERY: Duration = Duration::from_secs(1);
/// For an event that was lost while the daemon was away.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Runs until dropped, on a connection of its own.
pub async fn let_go(socket: PathBuf, woken: Arc<Notify>) {
    let mut client = None;
    loop {
        let stalled = match round(&socket, &mut client).await {
            Ok(stalled) => stalled,
            Err(error) => {
                tracing::debug!(%error, "guests whose disks do not answer are looked for again");
                client = None;
                0
            }
        };
        let pause = if stalled > 0 { TRY_EVERY } else { LOOK_EVERY };
        let _ = tokio::time::timeout(pause, woken.notified()).await;
        if stalled == 0 {
            // What was cut off a moment ago is not back yet.
            tokio::time::sleep(TRY_EVERY).await;
        }
    }
}

/// Answers how many there are.
async fn round(socket: &Path, held: &mut Option<Client>) -> Result<usize> {
    let client = match held {
        Some(client) => client,
        None => {
            let (events, _) = broadcast::channel::<LifecycleEvent>(1);
            held.insert(Client::connect(socket, events, CALL_PATIENCE).await?)
        }
    };
    let paused = Args::new().i32(1).u32(LIST_PAUSED);
    let paused = client.call(Procedure::ConnectListAllDomains, paused, CALL_PATIENCE).await?.domains()?;
    let mut stalled = 0;
    for domain in paused {
        if is_stalled(client, &domain).await? {
            stalled += 1;
            tracing::info!(guest = domain.name, "its disk did not answer: tried again");
            client.call(Procedure::DomainResume, Args::new().domain(&domain), CALL_PATIENCE).await?;
        }
    }
    Ok(stalled)
}

async fn is_stalled(client: &Client, domain: &DomainRef) -> Result<bool> {
    let args = Args::new().domain(domain).u32(0);
    let mut answer = client.call(Procedure::DomainGetState, args, CALL_PATIENCE).await?;
    Ok((answer.i32()?, answer.i32()?) == (STATE_PAUSED, REASON_IO_ERROR))
}
