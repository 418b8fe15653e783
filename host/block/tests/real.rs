//! Files under QEMU's own storage daemon: needs QEMU's tools, no root.

use base::ErrorKind;
use host_block::{Blocks, Export, Files, Network, Source, Tls};
use host_run::run;
use std::{os::unix::fs::MetadataExt, path::Path, time::Duration};

const VOLUME: &str = "0e8a7f6c-0000-4000-8000-000000000001";
const COPY: &str = "0e8a7f6c-0000-4000-8000-000000000002";
const SNAPSHOT: &str = "0e8a7f6c-0000-4000-8000-000000000003";
const MIB: u64 = 1 << 20;

/// What a guest would do, through the export.
async fn guest(files: &Files, volume: &str, read_only: bool, command: &str) -> host_run::Output {
    let Export::Unix { socket, name } = files.export(volume, read_only, "h1").await.unwrap() else {
        panic!("served on the network")
    };
    let url = format!("nbd+unix:///{name}?socket={}", socket.display());
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

    // It grows under the hands of whoever has it.
    for _ in 0..2 {
        files.extend(VOLUME, 96 * MIB).await.unwrap();
        assert!(guest(&files, VOLUME, false, "write -P 8 95M 1M").await.status.success());
        assert!(files.is_exported(VOLUME).await.unwrap());
    }
    for _ in 0..2 {
        files.unexport(VOLUME, &[]).await.unwrap();
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
    files.export(COPY, false, "h1").await.unwrap();
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
    files.export(VOLUME, false, "h1").await.unwrap();
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

/// An authority, and a certificate of it for each name, as QEMU lays them out.
async fn certificates(dir: &Path, names: &[&str]) {
    let openssl = |args: Vec<String>| run("openssl").args(args).output();
    let words = |text: String| text.split(' ').map(String::from).collect::<Vec<_>>();
    let at = |name: &str| dir.join(name).display().to_string();
    let (ca, ca_key) = (at("ca.pem"), at("ca-key.pem"));
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(words(format!("req -x509 {key} -keyout {ca_key} -out {ca} -subj /CN=authority -days 1")))
        .await
        .unwrap();
    for name in names {
        let own = dir.join(name);
        std::fs::create_dir(&own).unwrap();
        std::fs::copy(&ca, own.join("ca-cert.pem")).unwrap();
        let file = |end: &str| own.join(end).display().to_string();
        let (server, server_key, request) =
            (file("server-cert.pem"), file("server-key.pem"), file("request"));
        let subject = format!("-subj /O=cloud/CN={name} -addext subjectAltName=DNS:{name}");
        openssl(words(format!("req -new {key} -keyout {server_key} -out {request} {subject}")))
            .await
            .unwrap();
        let signing = format!("-CA {ca} -CAkey {ca_key} -CAcreateserial -days 1 -copy_extensions copy");
        openssl(words(format!("x509 -req -in {request} -out {server} {signing}"))).await.unwrap();
        std::fs::copy(&server, own.join("client-cert.pem")).unwrap();
        std::fs::copy(&server_key, own.join("client-key.pem")).unwrap();
    }
}

/// What a guest on another host does, whose QEMU shows that host's certificate.
async fn from_host(export: &Export, certificate: &Path, command: &str) -> bool {
    let Export::Tcp { address, port, name, tls_name } = export else { panic!("not on the network") };
    let tls = format!("tls-creds-x509,id=t,endpoint=client,verify-peer=on,dir={}", certificate.display());
    let server =
        format!("driver=nbd,server.type=inet,server.host={address},server.port={port},export={name}");
    let secured = format!("{server},tls-creds=t,tls-hostname={}", tls_name.as_deref().unwrap_or_default());
    let run = run("qemu-io").args(["--object", &tls, "--image-opts", "-c", command, &secured]);
    run.timeout(Duration::from_secs(20)).status().await.unwrap().status.success()
}

/// Other hosts reach a volume while cinder says so, each with its own certificate, and nobody else does.
#[tokio::test(flavor = "multi_thread")]
async fn other_hosts_reach_a_volume_with_their_certificate() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path(), &["s1", "h1", "h2", "h11"]).await;
    let tls = Tls { directory: dir.path().join("s1"), name: "s1".into() };
    let network = Network { address: [127, 0, 0, 1].into(), ports: 41100..=41199, tls: Some(tls) };
    let state = dir.path().join("state");
    let files = Files::open(&state).unwrap().on_network(network.clone()).unwrap();
    files.create(VOLUME, 16 * MIB, &Source::Empty).await.unwrap();
    let export = files.export(VOLUME, false, "h1").await.unwrap();
    let certificate = |host: &str| dir.path().join(host);
    assert!(from_host(&export, &certificate("h1"), "write -P 3 0 1M").await);
    for stranger in ["h2", "h11"] {
        assert!(!from_host(&export, &certificate(stranger), "read 0 1M").await, "{stranger}");
    }
    let Export::Tcp { address, port, name, .. } = &export else { panic!("not on the network") };
    let plain =
        run("qemu-io").args(["-f", "raw", "-c", "read 0 1M", &format!("nbd://{address}:{port}/{name}")]);
    assert!(!plain.status().await.unwrap().status.success(), "without a certificate");

    // A guest moves from one host to another: both have it for a while.
    assert_eq!(files.export(VOLUME, false, "h2").await.unwrap(), export);
    assert!(from_host(&export, &certificate("h2"), "read -P 3 0 1M").await);
    assert!(from_host(&export, &certificate("h1"), "read -P 3 0 1M").await);
    files.unexport(VOLUME, &["h2".into()]).await.unwrap();
    assert!(!from_host(&export, &certificate("h1"), "read 0 1M").await);
    assert!(from_host(&export, &certificate("h2"), "read -P 3 0 1M").await);

    // The host has a new certificate: it is served with that one, at the same place.
    let file = dir.path().join("s1/server-cert.pem");
    let later = std::time::SystemTime::now() + Duration::from_secs(5);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
    assert!(!files.is_exported(VOLUME).await.unwrap());
    files.export_again(VOLUME).await.unwrap();
    assert!(from_host(&export, &certificate("h2"), "read -P 3 0 1M").await);
    assert!(!from_host(&export, &certificate("h1"), "read 0 1M").await);
    let earlier = std::time::SystemTime::now() - Duration::from_secs(60);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(earlier).unwrap();
    assert!(files.is_exported(VOLUME).await.unwrap());

    // The machine was off: the same hosts find it at the same place.
    let pid = std::fs::read_to_string(state.join("exports").join(format!("{VOLUME}.pid"))).unwrap();
    run("kill").args(["-KILL", pid.trim()]).output().await.unwrap();
    while !is_gone(&pid) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!files.is_exported(VOLUME).await.unwrap());
    let files = Files::open(&state).unwrap().on_network(network).unwrap();
    files.export_again(VOLUME).await.unwrap();
    assert!(from_host(&export, &certificate("h2"), "read -P 3 0 1M").await);
    assert!(!from_host(&export, &certificate("h1"), "read 0 1M").await);
    files.unexport(VOLUME, &[]).await.unwrap();
    assert!(!from_host(&export, &certificate("h2"), "read 0 1M").await);
    assert_eq!(std::fs::read_dir(state.join("exports")).unwrap().count(), 0, "nothing is left");
    files.delete(VOLUME).await.unwrap();
}
