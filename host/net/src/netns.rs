//! Network namespaces that are held by files in a folder of this cloud, so that two clouds on one machine never
//! take each other's. `nsenter --net=FILE` enters one by hand.

use base::{Error, Result};
use host_run::{Run, run};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{NSFS_MAGIC, statfs},
};
use std::{
    fs::File,
    path::{Path, PathBuf},
};

/// Makes the namespace unless it is there. True when it is new.
pub async fn ensure(path: &Path) -> Result<bool> {
    if exists(path) {
        return Ok(false);
    }
    let path = path.to_path_buf();
    on_thread(move || {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        File::create(&path)?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| failed("unshare", &path, e))?;
        mount(Some("/proc/thread-self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(|e| failed("mount", &path, e))?;
        Ok(true)
    })
    .await
}

/// Lets go of the namespace: it ends when nothing runs in it any more.
pub async fn remove(path: &Path) -> Result<()> {
    while exists(path) {
        umount2(path, MntFlags::MNT_DETACH).map_err(|e| failed("umount", path, e))?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => Ok(other?),
    }
}

/// After a restart of the machine the file is there and the namespace is not.
pub fn exists(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == NSFS_MAGIC)
}

pub fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// Does something inside the namespace, on a thread of its own that ends with it. Sockets stay where they were
/// opened, so that what is returned goes on working outside.
pub async fn within<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let path = path.to_path_buf();
    on_thread(move || {
        setns(File::open(&path)?, CloneFlags::CLONE_NEWNET).map_err(|e| failed("setns", &path, e))?;
        work()
    })
    .await
}

/// A command to be run in the namespace, or in ours.
pub fn command(namespace: Option<&Path>, program: &str) -> Run {
    match namespace {
        None => run(program),
        Some(path) => run("nsenter").arg(format!("--net={}", path.display())).arg(program),
    }
}

async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new().name("netns".into()).spawn(move || {
        let _entered = runtime.enter();
        let _ = done.send(work());
    })?;
    result.await.map_err(|_| Error::internal("the thread in a network namespace ended without a word"))?
}

fn failed(call: &str, path: &Path, error: nix::Error) -> Error {
    Error::internal(format!("{call} {}: {error}", path.display()))
}
