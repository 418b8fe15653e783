//! The certificate of a host that has joined, laid out as QEMU wants it: with it the host's storage daemons serve
//! volumes and its guests reach those of others.

use base::Result;
use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

/// The group QEMU runs in where it is not root.
const QEMU_GROUP: &str = "kvm";

/// What it is called with the member's other papers, and with QEMU's.
const FILES: [(&str, &str); 5] = [
    (hosts::AUTHORITY_FILE, "ca-cert.pem"),
    (hosts::KEY_FILE, "server-key.pem"),
    (hosts::KEY_FILE, "client-key.pem"),
    (hosts::CERTIFICATE_FILE, "server-cert.pem"),
    (hosts::CERTIFICATE_FILE, "client-cert.pem"),
];

/// Copies them when they are new; a reader finds the old ones or the new ones.
pub fn hand_to_qemu(membership: &Path, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    let group = nix::unistd::Group::from_name(QEMU_GROUP).map_err(std::io::Error::from)?;
    let group = group.filter(|_| nix::unistd::geteuid().is_root()).map(|group| group.gid.as_raw());
    for (from, to) in FILES {
        let (bytes, path) = (fs::read(membership.join(from))?, directory.join(to));
        if fs::read(&path).is_ok_and(|known| known == bytes) {
            continue;
        }
        let part = directory.join(format!("{to}.part"));
        fs::write(&part, "")?;
        fs::set_permissions(&part, PermissionsExt::from_mode(if group.is_some() { 0o640 } else { 0o600 }))?;
        chown(&part, None, group)?;
        fs::write(&part, bytes)?;
        fs::rename(&part, &path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_have_theirs_and_nobody_else_reads_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("host"), dir.path().join("pki"));
        fs::create_dir(&from).unwrap();
        for (name, _) in FILES {
            fs::write(from.join(name), name).unwrap();
        }
        for round in ["one", "two"] {
            fs::write(from.join(hosts::CERTIFICATE_FILE), round).unwrap();
            hand_to_qemu(&from, &to).unwrap();
            assert_eq!(fs::read_to_string(to.join("server-cert.pem")).unwrap(), round);
        }
        assert_eq!(fs::read_dir(&to).unwrap().count(), FILES.len());
        let mode = fs::metadata(to.join("client-key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o007, 0);
    }
}
