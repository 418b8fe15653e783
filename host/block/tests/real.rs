//! Files under QEMU's own storage daemon: needs qemu-utils, no root.

use base::ErrorKind;
use host_block::{Blocks, Files, Source};
use host_run::run;
use std::{os::unix::fs::MetadataExt, path::Path};

const VOLUME: &str = "0e8a7f6c-0000-4000-8000-000000000001";
const COPY: &str = "0e8a7f6c-0000-4000-8000-000000000002";
const SNAPSHOT: &str = "0e8a7f6c-0000-4000-8000-000000000003";
const MIB: u64 = 1 << 20;

/// What a guest would do, through the export.
async fn guest(files: &Files, volume: &str, read_only: bool, command: &str) -> host_run::Output {
    let export = files.export(volume, read_only).await.unwrap();
    let url = format!("nbd+unix:///{}?socket={}", export.name, export.socket.display());
    let mode = if read_only { vec!["-r"] } else { vec![] };
    run("qemu-io").args(mode).args(["-f", "raw", "-c", command, &url]).status().await.unwrap()
}

fn is_pattern(file: &Path, at: u64, wanted: u8) -> bool {
    let bytes = std::fs::read(file).unwrap();
    bytes[at as usize..at as usize + 512].iter().all(|byte| *byte == wanted)
}

/// Dead, even if nobody has taken note yet.
fn is_gone(pid: &str) -> bool {
    std::fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default().is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_served_beyond_the_end_of_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let volume = dir.path().join("volumes").join(VOLUME);
    let files = Files::open(dir.path()).unwrap();
    files.create(VOLUME, 64 * MIB, &Source::Empty).await.unwrap();
    files.create(VOLUME, 64 * MIB, &Source::Empty).await.unwrap();
    assert_eq!(std::fs::metadata(&volume).unwrap().len(), 64 * MIB);
    assert_eq!(std::fs::metadata(&volume).unwrap().mode() & 0o777, 0o600);
    assert!(guest(&files, VOLUME, false, "write -P 7 0 1M").await.status.success());
    assert!(!guest(&files, VOLUME, true, "write -P 9 0 1M").await.status.success(), "read-only");

    // Another program on the same folder finds the daemon that serves it.
    let pid = std::fs::read_to_string(dir.path().join("exports").join(format!("{VOLUME}.pid"))).unwrap();
    drop(files);
    let files = Files::open(dir.path()).unwrap();
    assert!(guest(&files, VOLUME, false, "read -P 7 0 1M").await.status.success());
    let again = std::fs::read_to_string(dir.path().join("exports").join(format!("{VOLUME}.pid"))).unwrap();
    assert_eq!(again, pid, "the same daemon");
    assert!(files.extend(VOLUME, 128 * MIB).await.unwrap_err().is(ErrorKind::Conflict));
    assert!(files.revert(VOLUME, SNAPSHOT).await.unwrap_err().is(ErrorKind::Conflict));

    // Kept while it is served: what is written afterwards is not in it.
    files.snapshot(SNAPSHOT, VOLUME).await.unwrap();
    files.snapshot(SNAPSHOT, VOLUME).await.unwrap();
    assert!(guest(&files, VOLUME, false, "write -P 8 0 1M").await.status.success());
    let snapshot = dir.path().join("snapshots").join(SNAPSHOT);
    assert!(is_pattern(&snapshot, 0, 7) && is_pattern(&volume, 0, 8));
    let kept = std::fs::metadata(&snapshot).unwrap().blocks() * 512;
    assert!(kept < 8 * MIB, "sparse: {kept}");

    files.create(COPY, 96 * MIB, &Source::Volume(VOLUME.into())).await.unwrap();
    let copy = dir.path().join("volumes").join(COPY);
    assert!(is_pattern(&copy, 0, 8));
    assert_eq!(std::fs::metadata(&copy).unwrap().len(), 96 * MIB, "grown to what was asked");

    for _ in 0..2 {
        files.unexport(VOLUME).await.unwrap();
    }
    assert!(is_gone(&pid));
    files.extend(VOLUME, 128 * MIB).await.unwrap();
    assert_eq!(std::fs::metadata(&volume).unwrap().len(), 128 * MIB);
    files.revert(VOLUME, SNAPSHOT).await.unwrap();
    assert!(is_pattern(&volume, 0, 7));
    assert_eq!(std::fs::metadata(&volume).unwrap().len(), 128 * MIB, "its size stays");

    let stats = files.stats().await.unwrap();
    assert_eq!(stats.provisioned_bytes, (128 + 96 + 64) * MIB);
    assert!(stats.total_bytes > 0 && stats.free_bytes <= stats.total_bytes);
    files.export(COPY, false).await.unwrap();
    for _ in 0..2 {
        files.delete(VOLUME).await.unwrap();
        files.delete(COPY).await.unwrap();
        files.delete_snapshot(SNAPSHOT).await.unwrap();
    }
    for folder in ["volumes", "snapshots", "images", "exports"] {
        let left: Vec<_> = std::fs::read_dir(dir.path().join(folder)).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// A daemon that was killed left its sockets behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_daemon_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::open(dir.path()).unwrap();
    files.create(VOLUME, 8 * MIB, &Source::Empty).await.unwrap();
    files.export(VOLUME, false).await.unwrap();
    let pid = std::fs::read_to_string(dir.path().join("exports").join(format!("{VOLUME}.pid"))).unwrap();
    run("kill").args(["-KILL", pid.trim()]).output().await.unwrap();
    while !is_gone(&pid) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(guest(&files, VOLUME, false, "write -P 1 0 512").await.status.success());
    files.delete(VOLUME).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_checked_before_they_are_opened() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::open(dir.path()).unwrap();
    let image = files.image_file(VOLUME).unwrap();
    let qemu_img = |args: &[&str]| run("qemu-img").args(args).arg(&image);

    qemu_img(&["create", "-q", "-f", "qcow2"]).arg("16M").output().await.unwrap();
    run("qemu-io").args(["-f", "qcow2", "-c", "write -P 5 0 1M"]).arg(&image).output().await.unwrap();
    let source = |format: &str| Source::Image { format: format.into() };
    let refused = files.create(VOLUME, 8 * MIB, &source("qcow2")).await.unwrap_err();
    assert!(refused.is(ErrorKind::BadRequest) && refused.message.contains("larger"), "{refused:?}");
    let refused = files.create(VOLUME, 64 * MIB, &source("raw")).await.unwrap_err();
    assert!(refused.is(ErrorKind::BadRequest), "not what it is said to be: {refused:?}");
    files.create(VOLUME, 64 * MIB, &source("qcow2")).await.unwrap();
    let volume = dir.path().join("volumes").join(VOLUME);
    assert!(is_pattern(&volume, 0, 5) && !image.exists());
    assert_eq!(std::fs::metadata(&volume).unwrap().len(), 64 * MIB);

    // An image that names a file of the host.
    let image = files.image_file(COPY).unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, vec![42; 1 << 20]).unwrap();
    run("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .args([&secret, &image])
        .output()
        .await
        .unwrap();
    let refused = files.create(COPY, 64 * MIB, &source("qcow2")).await.unwrap_err();
    assert!(refused.is(ErrorKind::BadRequest), "{refused:?}");
    assert!(!dir.path().join("volumes").join(COPY).exists());
}
