//! Volumes and their servers.

use crate::cloud::{Cloud, IMAGE, NOBODY, OTHER, PROJECT};
use base::{Context, Json, id};
use contracts::volumes::{Connector, NewAttachment, NewVolume, Volumes};
use futures::future::join_all;
use serde_json::json;

/// The API as nova has it, within the process.
#[tokio::test(flavor = "multi_thread")]
async fn nova_makes_attaches_and_releases() {
    let cloud = Cloud::new().await;
    let volumes: &dyn Volumes = &*cloud.cinder;
    let cx = Context { project_id: PROJECT.into(), roles: vec!["member".into()], ..Context::default() };
    let wanted =
        NewVolume { id: id::uuid(), size_gb: 2, image_id: Some(IMAGE.into()), ..NewVolume::default() };
    for _ in 0..2 {
        assert_eq!(volumes.create(&cx, &wanted).await.unwrap().size_gb, 2);
    }
    cloud.cinder.settled().await;
    let shown = volumes.show(&cx, &wanted.id).await.unwrap();
    assert_eq!((shown.status.as_str(), shown.bootable), ("available", true));
    let stranger = Context { project_id: OTHER.into(), ..cx.clone() };
    assert!(volumes.show(&stranger, &wanted.id).await.unwrap_err().is(base::ErrorKind::NotFound));

    let attachment = |server: &str| NewAttachment {
        id: id::uuid(),
        volume_id: wanted.id.clone(),
        instance_id: server.into(),
        read_only: false,
    };
    let first = attachment("s1");
    for _ in 0..2 {
        volumes.reserve(&cx, &first).await.unwrap();
    }
    assert!(volumes.reserve(&cx, &attachment("s2")).await.unwrap_err().is(base::ErrorKind::Conflict));
    let connector =
        Connector { host: "h1".into(), ip: "127.0.0.1".into(), mountpoint: Some("/dev/vda".into()) };
    let connection = volumes.connect(&cx, &first.id, &connector).await.unwrap();
    assert_eq!(volumes.connect(&cx, &first.id, &connector).await.unwrap(), connection);
    for _ in 0..2 {
        volumes.complete(&cx, &first.id).await.unwrap();
    }
    assert_eq!(volumes.show(&cx, &wanted.id).await.unwrap().attached_to, ["s1"]);
    assert!(volumes.delete(&cx, &wanted.id).await.is_err(), "a server has it");
    for _ in 0..2 {
        volumes.detach(&cx, &first.id).await.unwrap();
    }
    for _ in 0..2 {
        volumes.delete(&cx, &wanted.id).await.unwrap();
        cloud.cinder.settled().await;
    }
    assert!(cloud.fake.volumes().is_empty() && cloud.fake.exports().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_at_once_and_a_volume_for_both() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(json!({"size": 1})).await;
    let attach = || {
        cloud.post("/v3/attachments", json!({"attachment": {"volume_uuid": id, "instance_uuid": id::uuid()}}))
    };
    let both = join_all((0..2).map(|_| attach())).await;
    let mut statuses: Vec<u16> = both.iter().map(|answer| answer.status).collect();
    statuses.sort();
    assert_eq!(statuses, [200, 400], "one of them has it");

    let kind = json!({"volume_type": {"name": "shared", "extra_specs": {"multiattach": "<is> True"}}});
    assert_eq!(cloud.call("admin", "POST", "/v3/types", Some(kind)).await.status, 200);
    let shared = cloud.volume(json!({"size": 1, "volume_type": "shared"})).await;
    let (one, two) = (cloud.attached(&shared).await, cloud.attached(&shared).await);
    for (attachment, exported, status) in [(one, true, "in-use"), (two, false, "available")] {
        let path = format!("/v3/attachments/{attachment}");
        assert_eq!(cloud.call("member", "DELETE", &path, None).await.status, 200);
        assert_eq!(cloud.fake.exports().contains_key(&shared), exported);
        assert_eq!(cloud.status(&shared).await, status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_way_to_attach() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(json!({"size": 1})).await;
    let path = format!("/v3/volumes/{id}/action");
    let act = async |body: Json, status: u16| {
        let answer = cloud.post(&path, body).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        answer.body
    };
    act(json!({"os-reserve": {}}), 202).await;
    assert_eq!(cloud.status(&id).await, "attaching");
    let info = act(json!({"os-initialize_connection": {"connector": {"host": "h1"}}}), 200).await;
    assert_eq!(info["connection_info"]["driver_volume_type"], "nbd_unix");
    act(json!({"os-attach": {"instance_uuid": NOBODY, "mountpoint": "/dev/vdb"}}), 202).await;
    let volume = cloud.get(&format!("/v3/volumes/{id}")).await["volume"].clone();
    assert_eq!(
        (&volume["status"], &volume["attachments"][0]["server_id"]),
        (&json!("in-use"), &json!(NOBODY))
    );
    assert_eq!(volume["metadata"], json!({"attached_mode": "rw", "readonly": "False"}));
    act(json!({"os-begin_detaching": {}}), 202).await;
    assert_eq!(cloud.status(&id).await, "detaching");
    act(json!({"os-roll_detaching": {}}), 202).await;
    act(json!({"os-begin_detaching": {}}), 202).await;
    act(json!({"os-terminate_connection": {"connector": {"host": "h1"}}}), 202).await;
    assert!(cloud.fake.exports().is_empty());
    act(json!({"os-detach": {}}), 202).await;
    assert_eq!(cloud.status(&id).await, "available");
    // Read-only volumes are attached so.
    act(json!({"os-update_readonly_flag": {"readonly": true}}), 202).await;
    act(json!({"os-attach": {"instance_uuid": NOBODY, "mountpoint": "/dev/vdb"}}), 400).await;
    let made = cloud.post("/v3/attachments", json!({"attachment": {"volume_uuid": id}})).await;
    assert_eq!(made.body["attachment"]["attach_mode"], "ro");
}

#[tokio::test(flavor = "multi_thread")]
async fn forced_detach_mends_a_volume_in_error() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(json!({"size": 1})).await;
    let attachment = cloud.attached(&id).await;
    let path = format!("/v3/volumes/{id}/action");
    let reset = json!({"os-reset_status": {"status": "error"}});
    assert_eq!(cloud.call("admin", "POST", &path, Some(reset)).await.status, 202);
    let forced = json!({"os-force_detach": {"connector": null, "attachment_id": attachment}});
    assert_eq!(cloud.post(&path, forced.clone()).await.status, 403);
    assert_eq!(cloud.call("admin", "POST", &path, Some(forced.clone())).await.status, 202);
    assert_eq!(cloud.status(&id).await, "available");
    assert!(cloud.fake.exports().is_empty());
    assert_eq!(cloud.call("admin", "POST", &path, Some(forced)).await.status, 400, "it is gone");
}
