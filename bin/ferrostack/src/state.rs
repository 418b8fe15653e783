//! The state directory: who runs on it, and whether the cloud is ready.

use base::{Error, Result};
use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{Read, Write},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

const LOCK: &str = "ferrostack.pid";
const READY: &str = "ready";
/// Written when a new cloud has got what it begins with.
pub const BEGUN: &str = "begun";

/// While it lives, no other process runs a cloud on the directory.
pub struct Running {
    directory: PathBuf,
    _lock: File,
}

impl Running {
    /// Makes the directory when it is missing. `Conflict` while another process has it.
    pub fn take(directory: &Path, listen: IpAddr) -> Result<Self> {
        // Guests' processes have users of their own and must reach their disks below it.
        make_directory(directory, 0o755)?;
        let path = directory.join(LOCK);
        let mut lock =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o644).open(&path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::conflict(format!("a cloud runs on {} already", directory.display())));
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        lock.set_len(0)?;
        writeln!(lock, "{}\n{listen}", std::process::id())?;
        let running = Self { directory: directory.into(), _lock: lock };
        running.not_ready();
        Ok(running)
    }

    pub fn ready(&self) -> Result<()> {
        Ok(std::fs::write(self.directory.join(READY), std::process::id().to_string())?)
    }

    pub fn has_begun(&self) -> bool {
        self.directory.join(BEGUN).exists()
    }

    pub fn begun(&self) -> Result<()> {
        Ok(std::fs::write(self.directory.join(BEGUN), "")?)
    }

    fn not_ready(&self) {
        let _ = std::fs::remove_file(self.directory.join(READY));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.not_ready();
    }
}

/// Whether a cloud has ever run here.
pub fn exists(directory: &Path) -> bool {
    directory.join(LOCK).exists()
}

/// The process that runs a cloud on the directory.
pub fn runner(directory: &Path) -> Result<Option<i32>> {
    let mut lock = match File::open(directory.join(LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if lock.try_lock_shared().is_ok() {
        return Ok(None);
    }
    let mut text = String::new();
    lock.read_to_string(&mut text)?;
    Ok(text.lines().next().and_then(|line| line.parse().ok()))
}

/// The address that the cloud of the directory binds, as one reaches it from this machine.
pub fn address(directory: &Path) -> Result<IpAddr> {
    let text = std::fs::read_to_string(directory.join(LOCK))?;
    let bound = text.lines().nth(1).and_then(|line| line.parse::<IpAddr>().ok());
    Ok(bound.filter(|address| !address.is_unspecified()).unwrap_or(IpAddr::from([127, 0, 0, 1])))
}

/// Whether that process says that its cloud is ready.
pub fn is_ready(directory: &Path, pid: i32) -> bool {
    std::fs::read_to_string(directory.join(READY)).is_ok_and(|text| text == pid.to_string())
}

pub fn make_directory(path: &Path, mode: u32) -> Result<()> {
    let cannot = |e| Error::bad_request(format!("cannot make {}: {e}", path.display()));
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(cannot)
}

/// Writes a file that only its owner reads; it is there whole or not at all.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(std::fs::rename(beside, path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(runner(directory.path()).unwrap(), None);
        let pid = std::process::id() as i32;
        let any = IpAddr::from([0, 0, 0, 0]);
        let running = Running::take(directory.path(), any).unwrap();
        assert_eq!(address(directory.path()).unwrap(), IpAddr::from([127, 0, 0, 1]));
        assert!(Running::take(directory.path(), any).is_err_and(|e| e.is(base::ErrorKind::Conflict)));
        assert_eq!(runner(directory.path()).unwrap(), Some(pid));
        assert!(!is_ready(directory.path(), pid));
        running.ready().unwrap();
        assert!(is_ready(directory.path(), pid));
        drop(running);
        assert!(!is_ready(directory.path(), pid) && runner(directory.path()).unwrap().is_none());
        Running::take(directory.path(), any).unwrap();
    }
}
