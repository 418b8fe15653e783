//! `ferrostack status`: whether the cloud answers, service by service.

use crate::{endpoints::ENDPOINTS, say::say, state};
use base::{Error, Result};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(5);

/// Prints a line for each service; an error when one does not answer.
pub fn print(directory: &Path) -> Result<()> {
    let Some(pid) = state::runner(directory)? else {
        return Err(Error::unavailable(format!("no cloud runs on {}", directory.display())));
    };
    let memory = resident_mib(pid).map(|mib| format!(", {mib} MiB")).unwrap_or_default();
    let ready = if state::is_ready(directory, pid) { "ready" } else { "starting" };
    say!("process {pid}{memory}, {ready}");
    let address = state::address(directory)?;
    let mut silent = 0;
    for endpoint in &ENDPOINTS {
        let at = SocketAddr::new(address, endpoint.ports[0]);
        let asked = Instant::now();
        let found = match first_line(at) {
            Ok(line) if line.starts_with('5') => format!("fails: {line}"),
            Ok(_) => format!("answers in {} ms", asked.elapsed().as_millis()),
            Err(error) => format!("does not answer: {error}"),
        };
        silent += i32::from(!found.starts_with("answers"));
        say!("{:<12} {at:<22} {found}", endpoint.name);
    }
    match silent {
        0 => Ok(()),
        _ => Err(Error::unavailable(format!("{silent} services do not answer"))),
    }
}

/// The status line of the service's answer to who it is; one that only knows longer paths says that it finds nothing.
fn first_line(at: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or("nothing").trim_start_matches("HTTP/1.1 ").to_string())
}

fn resident_mib(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
}
