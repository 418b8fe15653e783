//! `ferrostack doctor`: what is missing on this machine, and how to mend it.

use crate::say::say;
use base::{Error, Result};
use std::{collections::BTreeSet, path::Path};

/// Programs that agents call, and what needs them.
const PROGRAMS: [(&str, &[(&str, &str)]); 4] = [
    ("guests", &host_virt::PROGRAMS),
    ("guests' disks", &nova_compute::PROGRAMS),
    ("networks", &neutron_agent::PROGRAMS),
    ("volumes", &cinder_volume::PROGRAMS),
];

/// One finding that keeps a cloud from running here.
#[derive(Debug, PartialEq, Eq)]
pub struct Missing {
    pub what: String,
    pub mend: String,
}

/// Prints what is missing; an error when something is.
pub fn print() -> Result<()> {
    let missing = missing(|program| host_run::find(program).is_some());
    if missing.is_empty() {
        say!("Nothing is missing: `ferrostack run` can run guests here.");
        return Ok(());
    }
    for Missing { what, mend } in &missing {
        say!("{what}\n    {mend}");
    }
    Err(Error::bad_request(format!(
        "{} things are missing; `ferrostack run --simulate` needs none",
        missing.len()
    )))
}

fn missing(has: impl Fn(&str) -> bool) -> Vec<Missing> {
    let mut found = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        found.push(Missing { what: "not root".into(), mend: "run it with sudo".into() });
    }
    if !Path::new("/dev/net/tun").exists() {
        let (what, mend) = ("/dev/net/tun is missing: guests have no network", "modprobe tun");
        found.push(Missing { what: what.into(), mend: mend.into() });
    }
    let mut packages = BTreeSet::new();
    let mut programs = BTreeSet::new();
    for (_, list) in PROGRAMS {
        for (program, package) in list.iter().filter(|(program, _)| !has(program)) {
            programs.insert(*program);
            packages.insert(*package);
        }
    }
    if !packages.is_empty() {
        let list = |set: &BTreeSet<&str>, by: &str| set.iter().copied().collect::<Vec<_>>().join(by);
        found.push(Missing {
            what: format!("programs are missing: {}", list(&programs, ", ")),
            mend: format!("apt-get install --no-install-recommends {}", list(&packages, " ")),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let found = missing(|program| program != "dnsmasq");
        let dnsmasq = found.iter().find(|missing| missing.what.contains("dnsmasq")).unwrap();
        assert!(dnsmasq.mend.ends_with("dnsmasq-base"), "{dnsmasq:?}");
        assert!(!missing(|_| true).iter().any(|missing| missing.mend.contains("apt-get")));
    }
}
