//! `ferrostack host …` and `ferrostack join`: which hosts belong to a cloud. The first asks the control node
//! that runs on this machine.

use crate::{Secrets, Settings, database, roles::Roles, say::say, state};
use base::{Clock, Error, Result};
use hosts::{DOOR_PORT, Door, Identity};
use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

/// Makes this machine a host.
pub fn join(
    directory: &Path,
    url: &str,
    token: &str,
    roles: &str,
    name: Option<&str>,
    address: Option<IpAddr>,
) -> Result<()> {
    if let Some(pid) = state::runner(directory)? {
        return Err(Error::conflict(format!("process {pid} runs on {}; stop it first", directory.display())));
    }
    let roles = Roles::parse(roles.split(','))?;
    if roles.control {
        return Err(Error::bad_request(
            "a control node does not join: it is given the database and the broker in its configuration",
        ));
    }
    let name = match name {
        Some(name) => name.to_string(),
        None => base::machine_name(),
    };
    let address = match address {
        Some(address) => address,
        None => address_towards(url)?,
    };
    let identity = Identity { name, roles: roles.names(), address };
    state::make_directory(directory, 0o755)?;
    let joining = async { hosts::join(url, token, identity, &directory.join("host"), &Clock::real()).await };
    let member = tokio::runtime::Runtime::new()?.block_on(joining)?;
    let (name, roles) = (&member.identity.name, member.identity.roles.join(", "));
    say!("This machine is {name}, at {} for the others; its roles: {roles}.", member.identity.address);
    say!("Start it: ferrostack run --background --state {}", directory.display());
    Ok(())
}

pub fn token(settings: &Settings, minutes: Option<u64>, roles: &str) -> Result<()> {
    let roles = match roles {
        "" => Vec::new(),
        words => Roles::parse(words.split(','))?.names(),
    };
    say!("{}", ask(settings, async |door| door.new_token(minutes, roles.clone()).await)?);
    Ok(())
}

/// For the broker, mostly: its certificate is of the authority that hosts believe. The cloud need not run.
pub fn certificate(settings: &Settings, name: &str, to: &Path) -> Result<()> {
    let issuing = async {
        let db = database::open(settings, "hosts").await?;
        hosts::Hosts::server_credentials(&db, &Clock::real(), name).await
    };
    tokio::runtime::Runtime::new()?.block_on(issuing)?.write(to)?;
    say!("{name}'s certificate, good for a year, its key and its authority are in {}.", to.display());
    Ok(())
}

pub fn list(settings: &Settings) -> Result<()> {
    let hosts = ask(settings, async |door| door.hosts().await)?;
    let header = format!(
        "{:<24} {:<24} {:<16} {:<9} {:<5} {:<9} {:<12} LEFT",
        "NAME", "ROLES", "ADDRESS", "STATE", "UP", "VERSION", "LAST SEEN"
    );
    say!("{header}");
    for host in hosts {
        let seen = host.seconds_silent.map_or_else(|| "never".into(), |seconds| format!("{seconds} s ago"));
        let up = if host.up { "up" } else { "down" };
        let roles = host.roles.join(",");
        say!(
            "{:<24} {roles:<24} {:<16} {:<9} {up:<5} {:<9} {seen:<12} {}",
            host.name,
            host.address,
            host.state,
            host.version,
            hosts::told(&host.left)
        );
    }
    Ok(())
}

/// Nothing new comes to the host from now on, and what it has goes elsewhere. Waits for that, or leaves it to itself.
pub fn drain(settings: &Settings, name: &str, background: bool) -> Result<()> {
    ask(settings, async |door| {
        let mut host = door.set_state(name, "draining").await?;
        say!("Nothing new comes to {name}.");
        if background {
            return Ok(());
        }
        let mut told = String::new();
        loop {
            let line = hosts::told(&host.left);
            if host.left.is_empty() {
                say!("{name} is empty.");
                return Ok(());
            }
            if line != told {
                say!("{line} left");
                told = line;
            }
            if host.state == "active" {
                return Err(Error::conflict(format!("{name} was resumed meanwhile")));
            }
            if host.left.iter().all(|left| left.stuck) {
                return Err(Error::conflict(stuck(&host)));
            }
            tokio::time::sleep(LOOKED_AT_EVERY).await;
            host = door.host(name).await?;
        }
    })
}

/// How often it is looked how far a host is that is emptied.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

fn stuck(host: &hosts::HostView) -> String {
    let one = |left: &contracts::hosts::Left| format!("\n  {} {}: {}", left.kind, left.id, left.state);
    let all: String = host.left.iter().map(one).collect();
    format!("what is left on {} does not go by itself:{all}", host.name)
}

pub fn resume(settings: &Settings, name: &str) -> Result<()> {
    let host = ask(settings, async |door| door.set_state(name, "active").await)?;
    say!("{} is {}.", host.name, host.state);
    Ok(())
}

pub fn remove(settings: &Settings, name: &str, force: bool) -> Result<()> {
    ask(settings, async |door| door.remove(name, force).await)?;
    say!("{name} is no host of this cloud any more; its agents end.");
    Ok(())
}

/// Asks the control node of this machine.
fn ask<T>(settings: &Settings, question: impl AsyncFnOnce(Door) -> Result<T>) -> Result<T> {
    let missing = || Error::unavailable(format!("no control node runs on {}", settings.state.display()));
    state::runner(&settings.state)?.ok_or_else(missing)?;
    let address = SocketAddr::new(state::address(&settings.state)?, DOOR_PORT + settings.port_offset);
    let operator = Secrets::open(&settings.state)?.operator;
    let door =
        Door::of_operator(format!("https://{address}"), &settings.membership(), operator).map_err(|_| {
            Error::conflict("this cloud has no message broker, so no hosts can join it: [bus] url")
        })?;
    tokio::runtime::Runtime::new()?.block_on(question(door))
}

/// The address from which this machine reaches the control node: others mostly reach it there.
fn address_towards(url: &str) -> Result<IpAddr> {
    let authority = url.strip_prefix("https://").unwrap_or(url).trim_end_matches('/');
    let target = match authority.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => authority.to_string(),
        _ => format!("{authority}:{DOOR_PORT}"),
    };
    let socket = UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0"))?;
    let unreachable = |e| Error::unavailable(format!("{url}: {e}"));
    let address = match socket.connect(&target) {
        Ok(()) => socket.local_addr()?.ip(),
        Err(_) => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(&target).map_err(unreachable)?;
            socket.local_addr()?.ip()
        }
    };
    Ok(address.to_canonical())
}
