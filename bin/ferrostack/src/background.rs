//! `ferrostack run --background` and `ferrostack stop`: a cloud that outlives the terminal, without a service manager.

use crate::{say::say, state};
use base::{Error, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::OpenOptions,
    io::{Read, Seek, SeekFrom},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// A first start makes the guest image public and waits for the hypervisor; a loaded machine takes its time.
const READY_WITHIN: Duration = Duration::from_secs(180);
/// Flows are stopped at their next step, requests are finished.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Starts this program again with the same arguments but for `--background`, and returns when its cloud is ready.
pub fn start(directory: &Path) -> Result<()> {
    if let Some(pid) = state::runner(directory)? {
        say!("A cloud runs on {} already, as process {pid}.", directory.display());
        return Ok(());
    }
    state::make_directory(directory, 0o755)?;
    let path = directory.join("ferrostack.log");
    let log = OpenOptions::new().create(true).append(true).open(&path)?;
    let said_before = log.metadata()?.len();
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1).filter(|argument| argument != "--background"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()?;
    let pid = child.id() as i32;
    let until = Instant::now() + READY_WITHIN;
    while !state::is_ready(directory, pid) {
        if let Some(status) = child.try_wait()? {
            let last = said_since(&path, said_before);
            return Err(Error::internal(format!("the cloud ended at once ({status}):\n{last}")));
        }
        if Instant::now() > until {
            let log = path.display();
            let seconds = READY_WITHIN.as_secs();
            return Err(Error::timeout(format!(
                "the cloud is not ready after {seconds} s; it goes on, see {log}"
            )));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    say!(
        "{}",
        said_since(&path, said_before).split_once("The cloud answers").map_or_else(
            || format!("The cloud runs as process {pid}."),
            |(_, rest)| format!("The cloud answers{rest}"),
        )
    );
    Ok(())
}

/// Ends the cloud of a directory and waits for it.
pub fn stop(directory: &Path) -> Result<()> {
    let Some(pid) = state::runner(directory)? else {
        say!("No cloud runs on {}.", directory.display());
        return Ok(());
    };
    kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|e| Error::internal(format!("process {pid}: {e}")))?;
    let until = Instant::now() + STOPPED_WITHIN;
    while state::runner(directory)? == Some(pid) {
        if Instant::now() > until {
            return Err(Error::timeout(format!("process {pid} does not end")));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    say!("Stopped. Guests go on.");
    Ok(())
}

fn said_since(path: &Path, offset: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}
