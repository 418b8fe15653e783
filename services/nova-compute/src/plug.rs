//! Waits until the network agent has made a port's tap device and put it on the port's network.

use async_trait::async_trait;
use base::{Error, Result};
use contracts::compute::Port;
use std::{path::PathBuf, time::Duration};
use tokio::time::Instant;

const LOOK_EVERY: Duration = Duration::from_millis(50);

#[async_trait]
pub trait Plug: Send + Sync {
    /// Returns when the port's tap device is wired; a timeout says which port is not.
    async fn wait(&self, port: &Port, patience: Duration) -> Result<()>;
}

/// Looks at the kernel's network devices.
pub struct TapPlug {
    devices: PathBuf,
}

impl Default for TapPlug {
    fn default() -> Self {
        Self { devices: "/sys/class/net".into() }
    }
}

#[async_trait]
impl Plug for TapPlug {
    async fn wait(&self, port: &Port, patience: Duration) -> Result<()> {
        // A device without a master exists, but is on no network yet.
        let wired = self.devices.join(port.tap()).join("master");
        let deadline = Instant::now() + patience;
        while tokio::fs::symlink_metadata(&wired).await.is_err() {
            if Instant::now() >= deadline {
                return Err(Error::timeout(format!(
                    "Virtual Interface creation failed: port {} was not plugged within {} seconds",
                    port.id,
                    patience.as_secs()
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

/// A network where every port is plugged at once.
pub struct FakePlug;

#[async_trait]
impl Plug for FakePlug {
    async fn wait(&self, _port: &Port, _patience: Duration) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tap_counts_when_it_has_a_master() {
        let dir = tempfile::tempdir().unwrap();
        let plug = TapPlug { devices: dir.path().into() };
        let port = Port { id: "0e8a7f6c-1234-4000-8000-000000000001".into(), ..Port::default() };
        let device = dir.path().join("tap0e8a7f6c-12");
        std::fs::create_dir(&device).unwrap();
        let error = plug.wait(&port, Duration::from_millis(100)).await.unwrap_err();
        assert!(error.message.contains(&port.id), "{error}");
        std::fs::write(device.join("master"), "").unwrap();
        plug.wait(&port, Duration::ZERO).await.unwrap();
    }
}
