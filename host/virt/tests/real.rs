//! The libvirt driver against a real libvirtd and real guests. Needs root, the host packages and the guest image:
//! `make test-host`.

use base::{ErrorKind, Result};
use host_run::run;
use host_virt::{Change, Disk, DomainSpec, Format, Hypervisor, Libvirt, Nic, Options, Source, State};
use std::{path::PathBuf, time::Duration};
use tokio::time::Instant;

const BOOT_PATIENCE: Duration = Duration::from_secs(180);
const DETACH_PATIENCE: Duration = Duration::from_secs(30);

/// A host of its own in a folder, and what must go when the test ends.
struct Bench {
    dir: tempfile::TempDir,
    virt: Libvirt,
    ended: bool,
}

/// A test that fails leaves no daemon behind either.
impl Drop for Bench {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.dir.path().join("libvirt/run/libvirtd.pid"));
        if let (false, Ok(pid)) = (self.ended, pid) {
            let _ = std::process::Command::new("kill").arg(pid.trim()).status();
        }
    }
}

fn image() -> PathBuf {
    std::env::var_os("FERROSTACK_GUEST_IMAGE").expect("FERROSTACK_GUEST_IMAGE names the image").into()
}

fn options(dir: &std::path::Path) -> Options {
    Options { dir: dir.join("libvirt"), instances_dir: dir.join("instances"), ..Options::default() }
}

impl Bench {
    async fn new() -> Self {
        base::logging::init("host_virt=debug");
        let dir = tempfile::tempdir().unwrap();
        let virt = Libvirt::start(options(dir.path())).await.unwrap();
        Self { dir, virt, ended: false }
    }

    async fn spec(&self, image: &std::path::Path) -> DomainSpec {
        let uuid = base::id::uuid();
        let disk = self.dir.path().join("instances").join(format!("{uuid}.qcow2"));
        tokio::fs::copy(image, &disk).await.unwrap();
        DomainSpec {
            name: format!("virt-test-{}", &uuid[..8]),
            vcpus: 1,
            memory_mib: 160,
            disks: vec![Disk::file("root", disk, Format::Qcow2)],
            console_log: Some(self.dir.path().join("instances").join(format!("{uuid}.log"))),
            vnc_listen: Some("127.0.0.1".into()),
            guest_agent: true,
            smbios: true,
            metadata: [("display_name".to_string(), "a & <b>".to_string())].into(),
            uuid,
            ..DomainSpec::default()
        }
    }

    async fn console_says(&self, uuid: &str, text: &str) {
        let deadline = Instant::now() + BOOT_PATIENCE;
        loop {
            let console = self.virt.console_log(uuid, 64 * 1024).await.unwrap();
            let console = String::from_utf8_lossy(&console).into_owned();
            if console.contains(text) {
                return;
            }
            assert!(Instant::now() < deadline, "no '{text}' on the console:\n{console}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn state(&self, uuid: &str) -> State {
        self.virt.domain(uuid).await.unwrap().unwrap().state
    }

    async fn end(mut self) {
        self.ended = true;
        self.virt.remove_everything().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, libvirt and the guest image: make test-host"]
async fn a_guest_lives_and_leaves_nothing() -> Result<()> {
    let image = image();
    let bench = Bench::new().await;
    let virt = &bench.virt;
    let capabilities = virt.capabilities().await?;
    assert!(capabilities.hypervisor_version > 5_000_000 && capabilities.arch == "x86_64", "{capabilities:?}");

    let mut events = virt.events();
    let spec = bench.spec(&image).await;
    let uuid = spec.uuid.as_str();
    for _ in 0..2 {
        virt.define(&spec).await?;
    }
    for _ in 0..2 {
        virt.start(uuid).await?;
    }
    let domain = virt.domain(uuid).await?.unwrap();
    assert_eq!((domain.state, domain.metadata["display_name"].as_str()), (State::Running, "a & <b>"));
    let (address, port) = domain.vnc.expect("a screen");
    let mut screen = tokio::net::TcpStream::connect((address, port)).await?;
    let mut hello = [0; 4];
    tokio::io::AsyncReadExt::read_exact(&mut screen, &mut hello).await?;
    assert_eq!(&hello, b"RFB ");
    bench.console_says(uuid, "login:").await;

    // The daemon goes away and comes back: the guest has not noticed.
    virt.stop_daemon().await?;
    assert_eq!(bench.state(uuid).await, State::Running);

    let pid = tokio::fs::read_to_string(bench.dir.path().join("libvirt/run/libvirtd.pid")).await?;
    run("kill").args(["-KILL", pid.trim()]).output().await?;
    let deadline = Instant::now() + BOOT_PATIENCE;
    while virt.domains().await.is_err() {
        assert!(Instant::now() < deadline, "no new daemon");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(bench.state(uuid).await, State::Running);

    virt.pause(uuid).await?;
    assert_eq!(bench.state(uuid).await, State::Paused);
    virt.unpause(uuid).await?;
    virt.suspend(uuid).await?;
    assert_eq!(bench.state(uuid).await, State::Suspended);
    virt.start(uuid).await?;
    assert!(virt.power_off(uuid, Duration::from_secs(90)).await?, "the guest follows its power button");
    assert_eq!(bench.state(uuid).await, State::Shutoff);
    virt.reboot(uuid, None).await?;
    assert_eq!(bench.state(uuid).await, State::Running);
    for _ in 0..2 {
        virt.destroy(uuid).await?;
    }
    for _ in 0..2 {
        virt.undefine(uuid).await?;
    }
    assert_eq!(virt.domains().await?, []);
    assert!(virt.start(uuid).await.unwrap_err().is(ErrorKind::NotFound));

    let mut changes = Vec::new();
    while let Ok(event) = events.try_recv() {
        changes.push(event.change);
    }
    assert!(changes.contains(&Change::Started) && changes.contains(&Change::Undefined), "{changes:?}");
    bench.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, libvirt and the guest image: make test-host"]
async fn disks_and_cards_come_and_go() -> Result<()> {
    let image = image();
    let bench = Bench::new().await;
    let virt = &bench.virt;
    let tap = format!("virt{}", std::process::id() % 100_000);
    run("ip").args(["tuntap", "add", &tap, "mode", "tap"]).output().await?;
    run("ip").args(["link", "set", &tap, "up"]).output().await?;
    let spec = bench.spec(&image).await;
    let uuid = spec.uuid.as_str();
    virt.define(&spec).await?;
    virt.start(uuid).await?;
    bench.console_says(uuid, "login:").await;

    let volume = bench.dir.path().join("volume.raw");
    run("truncate").args(["--size=64M"]).arg(&volume).output().await?;
    let socket = bench.dir.path().join("volume.sock");
    let served = run("qemu-nbd")
        .args(["--fork", "--persistent", "--shared=4", "--export-name=vol", "--format=raw"])
        .arg(format!("--socket={}", socket.display()))
        .arg(format!("--pid-file={}", bench.dir.path().join("nbd.pid").display()))
        .arg(&volume);
    served.output().await?;
    run("chmod").arg("666").arg(&socket).output().await?;
    let disk = Disk::network("vol-1", Source::NbdUnix { socket, export: "vol".into() });
    for _ in 0..2 {
        assert_eq!(virt.attach_disk(uuid, &disk).await?, "vdb");
    }
    virt.resize_disk(uuid, "vol-1", 64 << 20).await?;
    for _ in 0..2 {
        virt.detach_disk(uuid, "vol-1", DETACH_PATIENCE).await?;
    }
    assert_eq!(virt.domain(uuid).await?.unwrap().disks, ["root"]);

    let mac = "fa:16:3e:00:00:01";
    let nic = Nic { tap: tap.clone(), mac: mac.into(), mtu: Some(1450), model: None };
    for _ in 0..2 {
        virt.attach_nic(uuid, &nic).await?;
    }
    assert_eq!(virt.domain(uuid).await?.unwrap().nics, [mac]);
    for _ in 0..2 {
        virt.detach_nic(uuid, mac, DETACH_PATIENCE).await?;
    }
    assert_eq!(virt.domain(uuid).await?.unwrap().nics, [""; 0]);

    // A stopped guest takes and gives devices too.
    virt.destroy(uuid).await?;
    virt.attach_nic(uuid, &nic).await?;
    assert_eq!(virt.attach_disk(uuid, &disk).await?, "vdb");
    virt.start(uuid).await?;
    virt.undefine(uuid).await?;
    run("ip").args(["link", "show", &tap]).output().await?; // not ours to remove
    run("ip").args(["tuntap", "del", &tap, "mode", "tap"]).output().await?;
    let pid = tokio::fs::read_to_string(bench.dir.path().join("nbd.pid")).await?;
    run("kill").arg(pid.trim()).output().await?;
    bench.end().await;
    Ok(())
}

/// Two clouds on one machine, each with its own libvirtd.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, libvirt and the guest image: make test-host"]
async fn two_hosts_do_not_see_each_other() -> Result<()> {
    let image = image();
    let (one, other) = (Bench::new().await, Bench::new().await);
    let spec = one.spec(&image).await;
    one.virt.define(&spec).await?;
    assert_eq!(one.virt.domains().await?.len(), 1);
    assert_eq!(other.virt.domains().await?, []);
    other.end().await;
    assert_eq!(one.virt.domains().await?.len(), 1);
    one.end().await;
    Ok(())
}
