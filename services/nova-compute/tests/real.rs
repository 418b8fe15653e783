//! The agent with real guests. Needs root, the host packages and the guest image: `make test-host`.

mod common;

use base::{Clock, Context, ErrorKind, Result};
use common::OneImage;
use contracts::compute::{
    Compute, Connection, Instance, InstanceImage, LivePhase, Port, PowerState, Reboot, Rescue, SnapshotImage,
    Volume,
};
use contracts::{
    fakes::peers::Exchange,
    peers::{Peer, Peers},
};
use host_run::run;
use nova_compute::{Link, Manager, Options, Surroundings};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::time::Instant;

const BOOT_PATIENCE: Duration = Duration::from_secs(180);

fn around(images: &Arc<OneImage>, peers: Option<Arc<dyn Peers>>) -> Surroundings {
    Surroundings { images: images.clone(), sink: images.clone(), peers, clock: Clock::real() }
}

async fn console_says(manager: &Manager, uuid: &str, text: &str) -> String {
    let deadline = Instant::now() + BOOT_PATIENCE;
    loop {
        let console = manager.console_log(&Context::internal(), uuid, 1 << 20).await.unwrap();
        let console = String::from_utf8_lossy(&console).into_owned();
        if console.contains(text) {
            return console;
        }
        assert!(Instant::now() < deadline, "no '{text}' on the console:\n{console}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// To a guest both disks are the same, whatever they lie on.
async fn is_the_same(one: &Path, other: &Path) -> Result<()> {
    run("qemu-img")
        .args(["compare", "-f", "qcow2", "-F", "qcow2"])
        .args([one, other])
        .output()
        .await
        .map(drop)
}

/// A file as a volume.
async fn serve(file: &Path, socket: &Path, pid_file: &Path) -> Result<()> {
    run("qemu-nbd")
        .args(["--fork", "--persistent", "--shared=4", "--export-name=vol", "--format=raw"])
        .arg(format!("--socket={}", socket.display()))
        .arg(format!("--pid-file={}", pid_file.display()))
        .arg(file)
        .output()
        .await?;
    run("chmod").arg("666").arg(socket).output().await.map(drop)
}

async fn kill(pid_file: &Path) -> Result<()> {
    let pid = tokio::fs::read_to_string(pid_file).await?;
    run("kill").arg(pid.trim()).output().await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, libvirt and the guest image: make test-host"]
async fn an_instance_from_build_to_destroy() -> Result<()> {
    base::logging::init("nova_compute=debug,host_virt=info");
    let image = std::env::var_os("FERROSTACK_GUEST_IMAGE").expect("FERROSTACK_GUEST_IMAGE names the image");
    let images = Arc::new(OneImage(image.into()));
    let state = tempfile::tempdir().unwrap();
    let cx = Context::internal();
    let options = || Options { vif_plugging_timeout_seconds: 20, ..Options::default() };
    let (manager, libvirt) = nova_compute::on_libvirt(options(), state.path(), around(&images, None)).await?;
    let host = manager.host(&cx).await?;
    assert!(host.vcpus > 0 && host.memory_mb > 0 && host.disk_gb > 0, "{host:?}");

    let uuid = base::id::uuid();
    let bridge = format!("virtbr{}", std::process::id() % 100_000);
    let port = Port { id: base::id::uuid(), mac: "fa:16:3e:00:00:07".into(), mtu: Some(1450) };
    let meta_data = format!(r#"{{"uuid": "{uuid}", "hostname": "first.novalocal"}}"#);
    let config_drive = [
        ("openstack/latest/meta_data.json", meta_data.as_str()),
        (
            "openstack/latest/user_data",
            "#!/bin/sh\ncat /sys/class/net/eth0/address; cat /proc/swaps; lsblk\n",
        ),
    ];
    let instance = Instance {
        uuid: uuid.clone(),
        name: format!("virt-{}", &uuid[..8]),
        display_name: "first & <only>".into(),
        vcpus: 1,
        memory_mb: 160,
        root_gb: 1,
        ephemeral_gb: 1,
        swap_mb: 16,
        image: Some(InstanceImage {
            id: base::id::uuid(),
            disk_format: "qcow2".into(),
            ..InstanceImage::default()
        }),
        ports: vec![port.clone()],
        config_drive: Some(config_drive.map(|(name, text)| (name.to_string(), text.to_string())).into()),
        power_on: true,
        ..Instance::default()
    };

    // The network agent is a little late.
    let (tap, on) = (port.tap(), bridge.clone());
    let network_agent = tokio::spawn(async move {
        run("ip").args(["link", "add", &on, "type", "bridge"]).output().await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        run("ip").args(["tuntap", "add", &tap, "mode", "tap"]).output().await?;
        run("ip").args(["link", "set", &tap, "master", &on, "up"]).output().await
    });
    for _ in 0..2 {
        assert_eq!(manager.build(&cx, &instance).await?.power_state, PowerState::Running);
    }
    network_agent.await.unwrap()?;
    let console = console_says(&manager, &uuid, "### instance:").await;
    assert!(console.contains("hostname=first"), "{console}");
    assert!(console.contains("fa:16:3e:00:00:07") && console.contains("vdc"), "{console}");

    let volume_file = state.path().join("volume.raw");
    run("truncate").args(["--size=64M"]).arg(&volume_file).output().await?;
    let socket = state.path().join("volume.sock");
    let pid_file = state.path().join("nbd.pid");
    serve(&volume_file, &socket, &pid_file).await?;
    let connection =
        Connection::NbdUnix { socket: socket.to_string_lossy().into_owned(), export: "vol".into() };
    let volume = Volume {
        volume_id: base::id::uuid(),
        connection,
        device_name: None,
        boot_index: None,
        read_only: false,
    };
    assert_eq!(manager.attach_volume(&cx, &uuid, &volume).await?, "/dev/vdd");
    assert_eq!(manager.observe(&cx, &uuid).await?.unwrap().volumes, std::slice::from_ref(&volume.volume_id));
    let larger = state.path().join("larger.raw");
    run("truncate").args(["--size=80M"]).arg(&larger).output().await?;
    let (larger_socket, larger_pid) = (state.path().join("larger.sock"), state.path().join("larger.pid"));
    serve(&larger, &larger_socket, &larger_pid).await?;
    let connection =
        Connection::NbdUnix { socket: larger_socket.to_string_lossy().into_owned(), export: "vol".into() };
    let other = Volume { volume_id: base::id::uuid(), connection, ..volume.clone() };
    for _ in 0..2 {
        manager.swap_volume(&cx, &uuid, &volume.volume_id, &other).await?;
    }
    assert_eq!(manager.observe(&cx, &uuid).await?.unwrap().volumes, std::slice::from_ref(&other.volume_id));
    manager.detach_volume(&cx, &uuid, &other.volume_id).await?;
    kill(&larger_pid).await?;

    let used = manager.diagnostics(&cx, &uuid).await?;
    assert_eq!((&*used.driver, &*used.state, used.cpus.len(), used.nics.len()), ("libvirt", "running", 1, 1));
    assert!(used.cpus[0] > 0 && used.disks.iter().any(|disk| disk.read_bytes > 0), "{used:?}");
    assert_eq!(used.nics[0].mac, port.mac);
    let snapshot = SnapshotImage { id: base::id::uuid(), disk_format: "qcow2".into() };
    manager.snapshot(&cx, &uuid, &snapshot).await?;
    assert_eq!(manager.observe(&cx, &uuid).await?.unwrap().power_state, PowerState::Running);

    // The agent ends, its daemon too; the next one finds the guest.
    libvirt.stop_daemon().await?;
    drop((manager, libvirt));
    let (manager, libvirt) = nova_compute::on_libvirt(options(), state.path(), around(&images, None)).await?;
    assert_eq!(manager.observe(&cx, &uuid).await?.unwrap().power_state, PowerState::Running);

    let rebooted = manager.reboot(&cx, &instance, Reboot::Soft { grace_seconds: 60 }).await?;
    assert_eq!(rebooted.power_state, PowerState::Running);
    assert_eq!(manager.stop(&cx, &uuid, 2).await?.power_state, PowerState::Shutdown);
    let image = instance.image.clone().unwrap();
    for stable in [false, true] {
        let rescue = Rescue { image: image.clone(), stable };
        assert_eq!(manager.rescue(&cx, &instance, &rescue).await?.power_state, PowerState::Running);
        assert_eq!(manager.unrescue(&cx, &instance).await?.power_state, PowerState::Running);
    }
    let here = Peer { host: manager.host_name().into(), ..Peer::default() };
    let larger = Instance { memory_mb: 192, root_gb: 2, ..instance.clone() };
    for _ in 0..2 {
        manager.resize_instance(&cx, &uuid, &here.host, 2).await?;
    }
    for _ in 0..2 {
        let arrived = manager.finish_resize(&cx, &larger, &here).await?;
        assert_eq!(arrived.power_state, PowerState::Running);
    }
    manager.destroy(&cx, &uuid).await?;
    for _ in 0..2 {
        let back = manager.finish_revert_resize(&cx, &instance).await?;
        assert_eq!(back.power_state, PowerState::Running);
    }
    assert_eq!(manager.stop(&cx, &uuid, 2).await?.power_state, PowerState::Shutdown);
    let console = manager.console_log(&cx, &uuid, 1 << 20).await?;
    assert!(String::from_utf8_lossy(&console).contains("### instance:"), "the log survives a reboot");
    for _ in 0..2 {
        manager.destroy(&cx, &uuid).await?;
    }
    assert_eq!(manager.observe(&cx, &uuid).await?, None);
    assert!(!state.path().join("instances").join(&uuid).exists());

    kill(&pid_file).await?;
    run("ip").args(["link", "del", &port.tap()]).output().await?;
    run("ip").args(["link", "del", &bridge]).output().await?;
    libvirt.stop_daemon().await
}

/// Two hosts on one machine: each has a daemon and disks of its own. The guest's disk goes with it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, libvirt and the guest image: make test-host"]
async fn a_running_guest_goes_to_another_host() -> Result<()> {
    base::logging::init("nova_compute=debug,host_virt=info");
    let image = std::env::var_os("FERROSTACK_GUEST_IMAGE").expect("FERROSTACK_GUEST_IMAGE names the image");
    let images = Arc::new(OneImage(image.into()));
    let (here, there, cx) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Context::internal());
    let exchange = Exchange::default();
    let start = async |state: &Path, host: &str| {
        let options = Options { host: host.into(), ..Options::default() };
        nova_compute::on_libvirt(options, state, around(&images, Some(exchange.host(host)))).await
    };
    let (source, libvirt) = start(here.path(), "first").await?;
    let (dest, other_libvirt) = start(there.path(), "second").await?;
    let peer = |host: &str| Peer { host: host.into(), ..Peer::default() };
    let uuid = base::id::uuid();
    let instance = Instance {
        uuid: uuid.clone(),
        name: format!("virt-{}", &uuid[..8]),
        vcpus: 1,
        memory_mb: 160,
        root_gb: 1,
        image: Some(InstanceImage {
            id: base::id::uuid(),
            disk_format: "qcow2".into(),
            ..InstanceImage::default()
        }),
        power_on: true,
        ..Instance::default()
    };
    source.build(&cx, &instance).await?;
    console_says(&source, &uuid, "login:").await;
    let refused = dest.pre_live_migration(&cx, &instance, true, &peer("first")).await.unwrap_err();
    assert!(refused.is(ErrorKind::Forbidden), "nova has not said so: {refused}");
    for _ in 0..2 {
        source.check_can_live_migrate_source(&cx, &uuid, "second").await?;
    }
    let target = dest.pre_live_migration(&cx, &instance, true, &peer("first")).await?;
    assert!(dest.observe(&cx, &uuid).await?.is_none());
    for _ in 0..2 {
        source.live_migration(&cx, &instance, &target).await?;
    }
    let deadline = Instant::now() + BOOT_PATIENCE;
    loop {
        let state = source.live_migration_state(&cx, &uuid).await?;
        match state.phase {
            LivePhase::Completed => break,
            LivePhase::Running => assert!(Instant::now() < deadline, "{state:?}"),
            _ => panic!("{state:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(source.observe(&cx, &uuid).await?.is_none());
    assert_eq!(dest.observe(&cx, &uuid).await?.unwrap().power_state, PowerState::Running);
    source.destroy(&cx, &uuid).await?;
    for state in [here.path(), there.path()] {
        let left = std::fs::read_dir(state.join("libvirt/run/go"))?.count();
        assert_eq!(left, 0, "sockets in {}", state.display());
    }
    // It has its disk and its definition: it can be stopped and started.
    assert_eq!(dest.stop(&cx, &uuid, 60).await?.power_state, PowerState::Shutdown);
    assert_eq!(dest.start(&cx, &instance).await?.power_state, PowerState::Running);

    // Off, it goes back, its disk with what is on it; and is called back; and goes for good.
    console_says(&dest, &uuid, "login:").await;
    let other = peer("second");
    for _ in 0..2 {
        dest.resize_instance(&cx, &uuid, "first", 60).await?;
    }
    let aside = there.path().join(format!("instances/{uuid}_resize/disk"));
    let refused = Link::new(exchange.host("third")).belongings(&other, &uuid).await.unwrap_err();
    assert!(refused.is(ErrorKind::Forbidden), "{refused}");
    let off = Instance { power_on: false, ..instance.clone() };
    for _ in 0..2 {
        assert_eq!(source.finish_resize(&cx, &off, &other).await?.power_state, PowerState::Shutdown);
    }
    is_the_same(&here.path().join(format!("instances/{uuid}/disk")), &aside).await?;
    source.destroy(&cx, &uuid).await?;
    assert_eq!(dest.finish_revert_resize(&cx, &instance).await?.power_state, PowerState::Running);
    dest.resize_instance(&cx, &uuid, "first", 2).await?;
    let larger = Instance { root_gb: 2, ..instance.clone() };
    assert_eq!(source.finish_resize(&cx, &larger, &other).await?.power_state, PowerState::Running);
    console_says(&source, &uuid, "login:").await;
    dest.confirm_resize(&cx, &uuid).await?;
    source.destroy(&cx, &uuid).await?;
    for state in [here.path(), there.path()] {
        let mut left = std::fs::read_dir(state.join("instances"))?.map(|entry| entry.unwrap().file_name());
        assert!(left.all(|name| name == "_base"), "folders in {}", state.display());
    }
    libvirt.stop_daemon().await?;
    other_libvirt.stop_daemon().await
}
