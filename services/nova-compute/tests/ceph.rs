//! The agent with real guests whose disks are in a real Ceph cluster. Needs root, the host packages, the guest image
//! and a cluster: `make test-ceph`.

mod common;

use base::{Clock, Context, Result};
use common::OneImage;
use contracts::compute::{Compute, Instance, InstanceImage, PowerState, SnapshotImage};
use contracts::peers::Peer;
use host_run::run;
use nova_compute::{Manager, Options, Surroundings};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::time::Instant;

const BOOT_PATIENCE: Duration = Duration::from_secs(300);

fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is said by scripts/test-ceph"))
}

/// What Ceph's own tool says of a disk in JSON.
async fn rbd(words: &[&str]) -> base::Json {
    let conf = given("FERROSTACK_TEST_CEPH");
    let said = run("rbd").args(["--conf", &conf, "--format", "json"]).args(words).text().await.unwrap();
    serde_json::from_str(&said).unwrap()
}

async fn boots(manager: &Manager, uuid: &str) {
    let deadline = Instant::now() + BOOT_PATIENCE;
    loop {
        let console = manager.console_log(&Context::internal(), uuid, 1 << 20).await.unwrap();
        let console = String::from_utf8_lossy(&console).into_owned();
        if console.contains("### instance:") {
            return;
        }
        assert!(Instant::now() < deadline, "the guest does not boot:\n{console}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn instance(image: &str, disk_format: &str) -> Instance {
    let uuid = base::id::uuid();
    let meta_data = format!(r#"{{"uuid": "{uuid}", "hostname": "first.novalocal"}}"#);
    let image =
        InstanceImage { id: image.into(), disk_format: disk_format.into(), ..InstanceImage::default() };
    Instance {
        name: format!("ceph-{}", &uuid[..8]),
        uuid,
        vcpus: 1,
        memory_mb: 160,
        root_gb: 1,
        image: Some(image),
        config_drive: Some([("openstack/latest/meta_data.json".to_string(), meta_data)].into()),
        power_on: true,
        ..Instance::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, libvirt, the guest image and a Ceph cluster: make test-ceph"]
async fn guests_run_from_clones_of_their_images() -> Result<()> {
    base::logging::init("nova_compute=debug,host_virt=info");
    let conf = given("FERROSTACK_TEST_CEPH");
    let qcow2 = PathBuf::from(given("FERROSTACK_GUEST_IMAGE"));
    let state = tempfile::tempdir().unwrap();
    let cx = Context::internal();
    // As glance keeps a raw image there.
    let image = base::id::uuid();
    let raw = state.path().join("raw");
    run("qemu-img").args(["convert", "-O", "raw"]).args([&qcow2, &raw]).output().await?;
    let pool = host_block::Rbd { pool: "images".into(), user: String::new(), conf: conf.clone() };
    pool.import(&raw, &image, "snap", 8).await?;

    let images = Arc::new(OneImage(qcow2));
    let around = Surroundings { images: images.clone(), sink: images, peers: None, clock: Clock::real() };
    let options = Options {
        host: "h1".into(),
        images_rbd_pool: "vms".into(),
        images_rbd_ceph_conf: conf,
        ..Options::default()
    };
    let (manager, libvirt) = nova_compute::on_libvirt(options, state.path(), around).await?;

    let cloned = instance(&image, "raw");
    for _ in 0..2 {
        assert_eq!(manager.build(&cx, &cloned).await?.power_state, PowerState::Running);
    }
    let disk = format!("vms/{}_h1", cloned.uuid);
    let info = rbd(&["info", &disk]).await;
    let parent = ["pool", "image", "snapshot"].map(|name| info["parent"][name].as_str().unwrap().to_string());
    assert_eq!(parent, ["images".to_string(), image.clone(), "snap".to_string()]);
    assert_eq!(info["size"], 1 << 30);
    boots(&manager, &cloned.uuid).await;
    assert!(!state.path().join("instances").join(&cloned.uuid).join("disk").exists());
    assert!(!state.path().join("instances/_base").join(&image).exists(), "nothing was fetched");

    // An image of it, taken while it runs.
    let snapshot = SnapshotImage { id: base::id::uuid(), disk_format: "qcow2".into() };
    manager.snapshot(&cx, &cloned.uuid, &snapshot).await?;
    assert_eq!(rbd(&["snap", "ls", &disk]).await, serde_json::json!([]));

    // To a larger flavor, and back.
    manager.resize_instance(&cx, &cloned.uuid, "h1", 0).await?;
    let here = Peer { host: "h1".into(), address: "127.0.0.1".into() };
    let larger = Instance { root_gb: 2, power_on: false, ..cloned.clone() };
    manager.finish_resize(&cx, &larger, &here).await?;
    assert_eq!(rbd(&["info", &disk]).await["size"], 2u64 << 30);
    manager.finish_revert_resize(&cx, &cloned).await?;
    assert_eq!(rbd(&["info", &disk]).await["size"], 1 << 30);
    boots(&manager, &cloned.uuid).await;

    // What cannot be cloned is copied.
    let copied = instance(&base::id::uuid(), "qcow2");
    assert_eq!(manager.build(&cx, &copied).await?.power_state, PowerState::Running);
    let info = rbd(&["info", &format!("vms/{}_h1", copied.uuid)]).await;
    assert_eq!((info["parent"].is_null(), &info["size"]), (true, &serde_json::json!(1 << 30)));
    boots(&manager, &copied.uuid).await;

    for uuid in [&cloned.uuid, &copied.uuid] {
        for _ in 0..2 {
            manager.destroy(&cx, uuid).await?;
        }
    }
    assert_eq!(rbd(&["ls", "vms"]).await, serde_json::json!([]));
    pool.remove(&image, "snap").await?;
    libvirt.stop_daemon().await
}
