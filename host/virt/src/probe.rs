//! Whether KVM really works here. A device node that opens proves nothing: some nested machines hang in it.
//! So a boot sector of six instructions is run, and its exit code is the proof.

use base::{Error, Result};
use host_run::run;
use std::{path::Path, time::Duration};

const QEMU: &str = "qemu-system-x86_64";
/// The firmware under KVM takes a fraction of this, on a loaded machine too.
const KVM_PATIENCE: Duration = Duration::from_secs(6);
/// What the boot sector writes to the exit device; QEMU then exits with twice that and one.
const EXIT_VALUE: u8 = 0x2a;
const EXIT_CODE: i32 = (EXIT_VALUE as i32) * 2 + 1;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Runs the proof, once per boot of the machine: the answer is kept in `dir`.
pub async fn kvm_works(dir: &Path) -> bool {
    if !Path::new("/dev/kvm").exists() {
        return false;
    }
    let boot_id = tokio::fs::read_to_string(BOOT_ID).await.unwrap_or_default();
    let kept = dir.join("kvm-probe");
    if let Ok(text) = tokio::fs::read_to_string(&kept).await
        && let Some(answer) = text.strip_prefix(&boot_id)
    {
        return answer == "works";
    }
    let proof = boot(dir, "kvm", KVM_PATIENCE).await;
    match &proof {
        Ok(()) => tracing::info!("KVM works"),
        Err(error) => tracing::warn!(%error, "KVM does not work here, guests are emulated"),
    }
    let answer = if proof.is_ok() { "works" } else { "fails" };
    let _ = tokio::fs::write(&kept, format!("{boot_id}{answer}")).await;
    proof.is_ok()
}

/// Boots the sector under an accelerator.
async fn boot(dir: &Path, accelerator: &str, patience: Duration) -> Result<()> {
    let file = dir.join(format!("probe-{accelerator}-{}.img", std::process::id()));
    tokio::fs::write(&file, boot_sector()).await?;
    let outcome = run(QEMU)
        .args(["-accel", accelerator, "-machine", "pc", "-m", "16", "-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
        .arg("-drive")
        .arg(format!("file={},format=raw,if=ide,snapshot=on", file.display()))
        .timeout(patience)
        .status()
        .await;
    let _ = tokio::fs::remove_file(&file).await;
    let output = outcome?;
    match output.status.code() {
        Some(EXIT_CODE) => Ok(()),
        _ => Err(Error::internal(format!("{accelerator}: {}: {}", output.status, output.complaint()))),
    }
}

/// `mov al, value; out 0xf4, al; hlt; jmp` back to the halt, and the mark that makes a sector bootable.
fn boot_sector() -> [u8; 512] {
    let mut sector = [0; 512];
    sector[..7].copy_from_slice(&[0xb0, EXIT_VALUE, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd]);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sector itself is proved under emulation, so that a failure under KVM is KVM's.
    #[tokio::test]
    async fn the_boot_sector_boots() {
        let dir = tempfile::tempdir().unwrap();
        boot(dir.path(), "tcg", Duration::from_secs(60)).await.unwrap();
        assert!(boot(dir.path(), "nonsense", Duration::from_secs(60)).await.is_err());
    }
}
