//! Volumes over HTTP: stories, and every write path with what it must refuse.

use crate::cloud::{Cloud, IMAGE, OTHER, PROJECT, options};
use base::{Context, Json, id};
use cinder::{Options, TABLES};
use contracts::agents::volume::VolumeReports;
use contracts::volumes::{Connector, NewAttachment, NewVolume, Volumes};
use futures::future::join_all;
use host_block::Fake;
use serde_json::json;
use std::time::Duration;

const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_a_server_and_back() {
    for database in db::testing::all(TABLES, &[]).await.unwrap() {
        let cloud = Cloud::with(options(), Fake::default(), database).await;
        let id = cloud.volume(json!({"size": 2, "name": "v"})).await;
        assert_eq!(cloud.fake.volumes().get(&id), Some(&(2 << 30)));
        let attachment = cloud.attached(&id).await;
        assert!(cloud.fake.exports().contains(&id));
        let volume = cloud.get(&format!("/v3/volumes/{id}")).await;
        assert_eq!(volume["volume"]["status"], "in-use");
        assert_eq!(volume["volume"]["attachments"][0]["device"], "/dev/vdb");
        assert_eq!(volume["volume"]["attachments"][0]["attachment_id"], attachment.as_str());
        let shown = cloud.get(&format!("/v3/attachments/{attachment}")).await;
        assert_eq!(shown["attachment"]["connection_info"]["driver_volume_type"], "nbd_unix");
        let connected = cloud.cinder.volumes_connected(&Context::internal(), "h1@files").await.unwrap();
        assert_eq!(connected, [id.as_str()]);
        let refused = cloud.call("member", "DELETE", &format!("/v3/volumes/{id}"), None).await;
        assert_eq!(refused.status, 400, "in use: {}", refused.body);
        let left = cloud.call("member", "DELETE", &format!("/v3/attachments/{attachment}"), None).await;
        assert_eq!((left.status, left.body), (200, json!({"attachments": []})));
        assert!(cloud.fake.exports().is_empty());
        assert_eq!(cloud.status(&id).await, "available");
        let deleted = cloud.call("member", "DELETE", &format!("/v3/volumes/{id}"), None).await;
        assert_eq!(deleted.status, 202);
        cloud.cinder.settled().await;
        assert_eq!(cloud.call("member", "GET", &format!("/v3/volumes/{id}"), None).await.status, 404);
        assert!(cloud.fake.volumes().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_becomes_a_bootable_volume_with_what_it_says_of_itself() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(json!({"size": 3, "imageRef": IMAGE})).await;
    let volume = cloud.get(&format!("/v3/volumes/{id}")).await["volume"].clone();
    assert_eq!(volume["bootable"], "true");
    assert_eq!(volume["volume_image_metadata"]["image_id"], IMAGE);
    assert_eq!(volume["volume_image_metadata"]["hw_disk_bus"], "virtio");
    let small = cloud.post("/v3/volumes", json!({"volume": {"size": 1, "imageRef": IMAGE}})).await;
    assert_eq!(small.status, 400);
    assert_eq!(
        small.message(),
        "Invalid input received: Size of specified image 2GB is larger than volume size 1GB."
    );
    // A copy of it boots, too.
    let copy = cloud.volume(json!({"source_volid": id})).await;
    let copy = cloud.get(&format!("/v3/volumes/{copy}")).await["volume"].clone();
    assert_eq!((&copy["bootable"], &copy["size"]), (&json!("true"), &json!(3)));
}

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
async fn a_hundred_at_once_against_a_quota_of_ten_give_ten() {
    for database in db::testing::all(TABLES, &[]).await.unwrap() {
        let quota = Options { quota_volumes: 10, ..options() };
        let cloud = Cloud::with(quota, Fake::default(), database).await;
        let body = json!({"volume": {"size": 1}});
        let asked = join_all((0..100).map(|_| cloud.post("/v3/volumes", body.clone()))).await;
        let taken = asked.iter().filter(|answer| answer.status == 202).count();
        let refused = asked.iter().filter(|answer| answer.status == 413).count();
        assert_eq!((taken, refused), (10, 90));
        let over = asked.iter().find(|answer| answer.status == 413).unwrap();
        assert_eq!(over.headers["retry-after"], "0");
        assert!(over.message().starts_with("VolumeLimitExceeded: "), "{}", over.body);
        cloud.cinder.settled().await;
        let count = cloud.get("/v3/volumes?with_count=true&limit=3").await;
        assert_eq!((&count["count"], count["volumes"].as_array().unwrap().len()), (&json!(10), 3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gigabytes_count_volumes_snapshots_and_extensions_under_way() {
    let quota = Options { quota_gigabytes: 5, per_volume_size_limit: 4, ..options() };
    let cloud = Cloud::with(quota, Fake::default(), db::testing::sqlite(TABLES, &[]).await.unwrap()).await;
    let id = cloud.volume(json!({"size": 2})).await;
    let action = format!("/v3/volumes/{id}/action");
    let extend = |size: i64| cloud.post(&action, json!({"os-extend": {"new_size": size}}));
    let answer = extend(5).await;
    assert_eq!(
        (answer.status, answer.message()),
        (413, "VolumeSizeExceedsLimit: Requested volume size 5G is larger than maximum allowed limit 4G.")
    );
    // Two at once: the second finds the volume busy.
    let (one, two) = tokio::join!(extend(4), extend(4));
    let mut statuses = [one.status, two.status];
    statuses.sort();
    assert_eq!(statuses, [202, 400]);
    cloud.cinder.settled().await;
    let snapshot = cloud.post("/v3/snapshots", json!({"snapshot": {"volume_id": id}})).await;
    assert_eq!(snapshot.status, 413, "4 of 5 are used, the snapshot takes 4: {}", snapshot.body);
    assert!(snapshot.message().contains("Requested 4G, quota is 5G and 4G has been consumed."));
    let used = cloud.get(&format!("/v3/os-quota-sets/{PROJECT}?usage=true")).await["quota_set"].clone();
    assert_eq!(used["gigabytes"], json!({"in_use": 4, "limit": 5, "reserved": 0}));
    assert_eq!(used["gigabytes___DEFAULT__"]["in_use"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn why_no_back_end_fits_is_told() {
    let cloud =
        Cloud::with(options(), Fake::with_capacity(1 << 30), db::testing::sqlite(TABLES, &[]).await.unwrap())
            .await;
    let answer = cloud.post("/v3/volumes", json!({"volume": {"size": 100}})).await;
    assert_eq!(answer.status, 202);
    let id = answer.body["volume"]["id"].as_str().unwrap();
    cloud.cinder.settled().await;
    assert_eq!(cloud.status(id).await, "error");
    let messages = cloud.get(&format!("/v3/messages?resource_uuid={id}")).await["messages"].clone();
    let told = messages[0]["user_message"].as_str().unwrap();
    assert_eq!(messages[0]["event_id"], "VOLUME_VOLUME_001_003");
    assert!(
        told.starts_with("schedule allocate volume:Could not find any available weighted backend."),
        "{told}"
    );
    assert!(told.contains("h1@files: of 20 GiB that may be promised 0 are, 100 more are wanted"), "{told}");
    // One that was never placed is deleted all the same.
    assert_eq!(cloud.call("member", "DELETE", &format!("/v3/volumes/{id}"), None).await.status, 202);
    cloud.cinder.settled().await;
    assert_eq!(cloud.call("member", "GET", &format!("/v3/volumes/{id}"), None).await.status, 404);
    // A back end that is silent, and one that is switched off, get nothing.
    cloud.clock.advance(Duration::from_secs(600));
    let services = cloud.call("admin", "GET", "/v3/os-services", None).await;
    assert_eq!(services.body["services"][1]["state"], "down");
    cloud.report().await;
    let off = json!({"binary": "cinder-volume", "host": "h1@files", "disabled_reason": "repairs"});
    let answer = cloud.call("admin", "PUT", "/v3/os-services/disable-log-reason", Some(off)).await;
    assert_eq!((answer.status, &answer.body["disabled_reason"]), (200, &json!("repairs")));
    let answer = cloud.post("/v3/volumes", json!({"volume": {"size": 1}})).await;
    cloud.cinder.settled().await;
    assert_eq!(cloud.status(answer.body["volume"]["id"].as_str().unwrap()).await, "error");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_back_end_refuses_is_told_and_can_be_deleted() {
    let cloud = Cloud::new().await;
    cloud.refuse("out of order");
    let answer = cloud.post("/v3/volumes", json!({"volume": {"size": 1}})).await;
    let id = answer.body["volume"]["id"].as_str().unwrap().to_string();
    cloud.cinder.settled().await;
    assert_eq!(cloud.status(&id).await, "error");
    let messages = cloud.get("/v3/messages").await["messages"].clone();
    assert_eq!(messages[0]["user_message"], "create volume from backend storage:out of order");
    let message = messages[0]["id"].as_str().unwrap();
    let path = format!("/v3/messages/{message}");
    assert_eq!(cloud.call("reader", "DELETE", &path, None).await.status, 403);
    assert_eq!(cloud.call(&format!("member@{OTHER}"), "GET", &path, None).await.status, 404);
    assert_eq!(cloud.call("member", "DELETE", &path, None).await.status, 204);
    // A delete that fails can be forced.
    let volume = cloud.volume(json!({"size": 1})).await;
    cloud.refuse("out of order");
    assert_eq!(cloud.call("member", "DELETE", &format!("/v3/volumes/{volume}"), None).await.status, 202);
    cloud.cinder.settled().await;
    assert_eq!(cloud.status(&volume).await, "error_deleting");
    let force = json!({"os-force_delete": {}});
    let path = format!("/v3/volumes/{volume}/action");
    assert_eq!(cloud.call("member", "POST", &path, Some(force.clone())).await.status, 403);
    assert_eq!(cloud.call("admin", "POST", &path, Some(force)).await.status, 202);
    cloud.cinder.settled().await;
    assert!(cloud.fake.volumes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_back_end_stays_as_it_is() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(json!({"size": 2})).await;
    let freeze = json!({"host": "h1@files"});
    let switch = async |verb: &str, body: &Json, status: u16| {
        let path = format!("/v3/os-services/{verb}");
        let answer = cloud.call("admin", "PUT", &path, Some(body.clone())).await;
        assert_eq!(answer.status, status, "{}", answer.body);
    };
    assert_eq!(cloud.call("member", "PUT", "/v3/os-services/freeze", Some(freeze.clone())).await.status, 403);
    switch("freeze", &json!({"host": "nobody"}), 400).await;
    switch("freeze", &freeze, 202).await;
    switch("freeze", &freeze, 400).await;
    let refused = cloud.call("member", "DELETE", &format!("/v3/volumes/{id}"), None).await;
    assert_eq!(refused.status, 400);
    assert!(refused.message().contains("frozen storage backends"), "{}", refused.body);
    assert_eq!(cloud.post("/v3/snapshots", json!({"snapshot": {"volume_id": id}})).await.status, 400);
    switch("thaw", &freeze, 202).await;
    assert_eq!(cloud.post("/v3/snapshots", json!({"snapshot": {"volume_id": id}})).await.status, 202);
    cloud.cinder.settled().await;
    let host = cloud.call("admin", "GET", "/v3/os-hosts/h1@files", None).await.body["host"].clone();
    assert_eq!(host[0]["resource"]["project"], "(total)");
    assert_eq!(
        (&host[1]["resource"]["project"], &host[1]["resource"]["total_snapshot_gb"]),
        (&json!(PROJECT), &json!("2"))
    );
    assert_eq!(cloud.call("admin", "GET", "/v3/os-hosts/x", None).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_client_at_v2() {
    let cloud = Cloud::new().await;
    let path = format!("/v2/{PROJECT}/volumes");
    let headers = [("x-auth-token", "member")];
    let made =
        cloud.ask("POST", &path, &headers, Some(json!({"volume": {"size": 1, "display_name": "old"}}))).await;
    assert_eq!((made.status, &made.body["volume"]["name"]), (202, &json!("old")));
    let id = made.body["volume"]["id"].as_str().unwrap();
    assert_eq!(made.body["volume"]["links"][0]["href"], format!("http://c:8776/v2/{PROJECT}/volumes/{id}"));
    for key in ["group_id", "service_uuid", "volume_type_id", "consumes_quota"] {
        assert!(made.body["volume"].get(key).is_none(), "{key} is newer");
    }
    cloud.cinder.settled().await;
    let shown = cloud.ask("GET", &format!("{path}/{id}"), &headers, None).await;
    assert_eq!(shown.body["volume"]["status"], "available");
    let wrong = cloud.ask("GET", &format!("/v2/{OTHER}/volumes"), &headers, None).await;
    assert_eq!((wrong.status, wrong.message()), (400, "Malformed request url"));
    assert_eq!(cloud.ask("GET", "/v2/", &headers, None).await.status, 404);
    for (method, path, status) in
        [("GET", ".json", 200), ("GET", "/", 404), ("DELETE", "/", 404), ("HEAD", "", 404)]
    {
        let answer = cloud.ask(method, &format!("/v3/{PROJECT}/volumes{path}"), &headers, None).await;
        assert_eq!(answer.status, status, "{method} {path}");
    }
}

/// Who, what, the status, and a part of what is said.
type Refusal = (&'static str, &'static str, String, Json, u16, &'static str);

#[tokio::test(flavor = "multi_thread")]
async fn refusals() {
    let cloud = Cloud::new().await;
    let free = cloud.volume(json!({"size": 2})).await;
    let used = cloud.volume(json!({"size": 1})).await;
    let attachment = cloud.attached(&used).await;
    let snapshot = cloud.post("/v3/snapshots", json!({"snapshot": {"volume_id": free}})).await;
    let snapshot = snapshot.body["snapshot"]["id"].as_str().unwrap().to_string();
    cloud.cinder.settled().await;
    let other: &'static str = Box::leak(format!("member@{OTHER}").into_boxed_str());
    let volume = format!("/v3/volumes/{free}");
    let action = format!("{volume}/action");
    let in_use = format!("/v3/volumes/{used}/action");
    let metadata = format!("{volume}/metadata");
    let long = "x".repeat(256);
    let create = |body: Json| json!({"volume": body});
    let cases: Vec<Refusal> = vec![
        // create
        ("norole", "POST", "/v3/volumes".into(), create(json!({"size": 1})), 403, "volume:create"),
        (
            "reader",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 1, "imageRef": IMAGE})),
            403,
            "volume:create_from_image",
        ),
        ("member", "POST", "/v3/volumes".into(), json!([]), 400, "[] is not of type 'object'"),
        ("member", "POST", "/v3/volumes".into(), create(json!("x")), 400, "'x' is not of type 'object'"),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": -1})),
            400,
            "-1 is less than the minimum of 1",
        ),
        ("member", "POST", "/v3/volumes".into(), create(json!({"size": 1.5})), 400, "not of type"),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 1, "description": long})),
            400,
            "description has 256 characters",
        ),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 1, "metadata": {"a": 1}})),
            400,
            "1 is not of type 'string'",
        ),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 1, "metadata": {"": "x"}})),
            400,
            "does not match any of the regexes",
        ),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 1, "snapshot_id": "x"})),
            400,
            "not valid under any of the given schemas",
        ),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 1, "snapshot_id": snapshot})),
            400,
            "cannot be smaller than the snapshot size 2GB",
        ),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 1, "source_volid": free})),
            400,
            "cannot be smaller than original volume size",
        ),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 2, "source_volid": free, "snapshot_id": snapshot})),
            400,
            "May specify only one of",
        ),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 1, "multiattach": true})),
            400,
            "multiattach parameter has been removed",
        ),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 1, "group_id": NOBODY})),
            404,
            "Group",
        ),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 1, "backup_id": NOBODY})),
            404,
            "Backup",
        ),
        (other, "POST", "/v3/volumes".into(), create(json!({"source_volid": free})), 404, "Volume"),
        (other, "POST", "/v3/volumes".into(), create(json!({"snapshot_id": snapshot})), 404, "Snapshot"),
        // update and delete
        ("reader", "PUT", volume.clone(), create(json!({"name": "x"})), 403, "volume:update"),
        (other, "PUT", volume.clone(), create(json!({"name": "x"})), 404, "could not be found"),
        ("member", "PUT", volume.clone(), create(json!({"name": long})), 400, "name has 256 characters"),
        ("member", "PUT", volume.clone(), create(json!({"size": 7})), 400, "Additional properties"),
        ("reader", "DELETE", volume.clone(), Json::Null, 403, "volume:delete"),
        ("member", "DELETE", volume.clone(), Json::Null, 400, "have snapshots"),
        ("member", "DELETE", format!("{volume}?force=true"), Json::Null, 403, "volume:force_delete"),
        ("member", "DELETE", format!("{volume}?cascade=maybe"), Json::Null, 400, "maybe"),
        // metadata
        ("reader", "POST", metadata.clone(), json!({"metadata": {}}), 403, "volume:create_volume_metadata"),
        (other, "PUT", metadata.clone(), json!({"metadata": {}}), 404, "Volume"),
        (
            "member",
            "PUT",
            metadata.clone(),
            json!({"metadata": {"a": null}}),
            400,
            "None is not of type 'string'",
        ),
        ("member", "PUT", metadata.clone(), json!({"metadata": {"a": long}}), 400, "is too long"),
        (
            "member",
            "PUT",
            format!("{metadata}/a"),
            json!({"meta": {"b": "c"}}),
            400,
            "Request body and URI mismatch",
        ),
        (
            "member",
            "PUT",
            format!("{metadata}/a"),
            json!({"meta": {"a": "b", "c": "d"}}),
            400,
            "too many properties",
        ),
        ("member", "DELETE", format!("{metadata}/a"), Json::Null, 404, "no metadata with key a"),
        // actions
        ("reader", "POST", action.clone(), json!({"os-extend": {"new_size": 4}}), 403, "volume:extend"),
        (other, "POST", action.clone(), json!({"os-extend": {"new_size": 4}}), 404, "Volume"),
        (
            "member",
            "POST",
            action.clone(),
            json!({"os-extend": {"new_size": 2}}),
            400,
            "must be greater than current size",
        ),
        (
            "member",
            "POST",
            action.clone(),
            json!({"os-extend": {}}),
            400,
            "'new_size' is a required property",
        ),
        (
            "member",
            "POST",
            action.clone(),
            json!({"os-set_bootable": {"bootable": "perhaps"}}),
            400,
            "is not one of",
        ),
        (
            "reader",
            "POST",
            action.clone(),
            json!({"os-set_bootable": {"bootable": true}}),
            403,
            "volume:update",
        ),
        (
            "member",
            "POST",
            in_use.clone(),
            json!({"os-update_readonly_flag": {"readonly": true}}),
            400,
            "must be available to update readonly flag",
        ),
        ("member", "POST", action.clone(), json!({"os-retype": {"new_type": "nothing"}}), 404, "nothing"),
        (
            "member",
            "POST",
            action.clone(),
            json!({"os-retype": {"new_type": "__DEFAULT__"}}),
            400,
            "has to be different",
        ),
        ("member", "POST", action.clone(), json!({"os-begin_detaching": {}}), 400, "must be 'in-use'"),
        ("member", "POST", in_use.clone(), json!({"os-reserve": {}}), 400, "must be available to reserve"),
        (
            "member",
            "POST",
            in_use.clone(),
            json!({"os-attach": {"mountpoint": "/dev/vdc", "instance_uuid": NOBODY}}),
            400,
            "already attached",
        ),
        (
            "member",
            "POST",
            in_use.clone(),
            json!({"os-attach": {"mountpoint": "/dev/vdc"}}),
            400,
            "not valid under any of the given schemas",
        ),
        (
            "member",
            "POST",
            in_use.clone(),
            json!({"os-detach": {"attachment_id": NOBODY}}),
            400,
            "VolumeAttachmentNotFound",
        ),
        ("member", "POST", in_use.clone(), json!({"os-force_detach": {}}), 403, "force_detach"),
        (
            "admin",
            "POST",
            action.clone(),
            json!({"os-reset_status": {"status": "flying"}}),
            400,
            "is invalid",
        ),
        ("admin", "POST", action.clone(), json!({"os-reset_status": {}}), 400, "Must specify"),
        (
            "admin",
            "POST",
            action.clone(),
            json!({"os-reset_status": {"status": "in-use"}}),
            400,
            "does not have any attachments",
        ),
        (
            "member",
            "POST",
            action.clone(),
            json!({"revert": {"snapshot_id": NOBODY}}),
            400,
            "not the latest one",
        ),
        (
            "member",
            "POST",
            in_use.clone(),
            json!({"revert": {"snapshot_id": NOBODY}}),
            400,
            "doesn't have any snapshots",
        ),
        (
            "member",
            "POST",
            action.clone(),
            json!({"os-unset_image_metadata": {"key": "x"}}),
            404,
            "Metadata item was not found",
        ),
        (
            "member",
            "POST",
            action.clone(),
            json!({"os-initialize_connection": {"connector": {}}}),
            400,
            "host",
        ),
        (
            "member",
            "POST",
            action.clone(),
            json!({"os-migrate_volume": {"host": "x"}}),
            400,
            "There is no such action",
        ),
        // attachments
        (
            other,
            "POST",
            "/v3/attachments".into(),
            json!({"attachment": {"volume_uuid": free}}),
            404,
            "Volume",
        ),
        (
            "member",
            "POST",
            "/v3/attachments".into(),
            json!({"attachment": {"volume_uuid": 7}}),
            400,
            "not of type",
        ),
        (
            "member",
            "POST",
            "/v3/attachments".into(),
            json!({"attachment": {"volume_uuid": free, "mode": "w"}}),
            400,
            "is not one of",
        ),
        (
            "member",
            "PUT",
            format!("/v3/attachments/{attachment}"),
            json!({"attachment": {"connector": {}}}),
            400,
            "should be non-empty",
        ),
        (
            "reader",
            "PUT",
            format!("/v3/attachments/{attachment}"),
            json!({"attachment": {"connector": {"host": "h1"}}}),
            403,
            "attachment_update",
        ),
        (other, "DELETE", format!("/v3/attachments/{attachment}"), Json::Null, 404, "attachment_id"),
        // snapshots
        (other, "DELETE", format!("/v3/snapshots/{snapshot}"), Json::Null, 404, "Snapshot"),
        ("reader", "DELETE", format!("/v3/snapshots/{snapshot}"), Json::Null, 403, "delete_snapshot"),
        (
            "member",
            "PUT",
            format!("/v3/snapshots/{snapshot}"),
            json!({"snapshot": {}}),
            400,
            "not valid under any",
        ),
        (
            "member",
            "POST",
            format!("/v3/snapshots/{snapshot}/action"),
            json!({"os-reset_status": {"status": "error"}}),
            403,
            "reset_status",
        ),
        (
            "admin",
            "POST",
            format!("/v3/snapshots/{snapshot}/action"),
            json!({"os-reset_status": {"status": "flying"}}),
            400,
            "is invalid",
        ),
        (
            "member",
            "POST",
            format!("/v3/snapshots/{snapshot}/action"),
            json!({"os-update_snapshot_status": {"status": "error"}}),
            400,
            "not allowed",
        ),
        // lists
        ("member", "GET", "/v3/volumes?limit=-1".into(), Json::Null, 400, "limit param must be positive"),
        ("member", "GET", "/v3/volumes?offset=x".into(), Json::Null, 400, "offset must be an integer"),
        ("member", "GET", "/v3/volumes?sort=name:up".into(), Json::Null, 400, "Unknown sort direction"),
        ("member", "GET", "/v3/volumes?sort=name&sort_key=id".into(), Json::Null, 400, "deprecated"),
        ("member", "GET", "/v3/volumes?colour=red".into(), Json::Null, 400, "Invalid filters colour"),
        ("member", "GET", "/v3/volumes?bootable=perhaps".into(), Json::Null, 400, "bootable"),
        ("member", "GET", "/v3/volumes?created_at=after:x".into(), Json::Null, 400, "Invalid after operator"),
        ("norole", "GET", "/v3/volumes".into(), Json::Null, 403, "volume:get_all"),
    ];
    for (who, method, path, body, status, said) in cases {
        let body = Some(body).filter(|body| !body.is_null());
        let answer = cloud.call(who, method, &path, body.clone()).await;
        assert_eq!(answer.status, status, "{who} {method} {path} {body:?}: {}", answer.body);
        assert!(
            answer.message().contains(said),
            "{method} {path} {body:?}: {} lacks {said:?}",
            answer.message()
        );
    }
    assert_eq!(cloud.status(&free).await, "available", "nothing of it changed anything");
    assert_eq!(cloud.fake.volumes().len(), 2);
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
        assert_eq!(cloud.fake.exports().contains(&shared), exported);
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
async fn snapshots_revert_and_cascade() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(json!({"size": 1})).await;
    let attachment = cloud.attached(&id).await;
    let made = cloud.post("/v3/snapshots", json!({"snapshot": {"volume_id": id, "name": "s"}})).await;
    assert_eq!(made.status, 202, "also in use, since 3.66: {}", made.body);
    let older = [("x-auth-token", "member"), ("openstack-api-version", "volume 3.65")];
    let body = json!({"snapshot": {"volume_id": id}});
    let refused = cloud.ask("POST", "/v3/snapshots", &older, Some(body)).await;
    assert!(
        refused.message().ends_with("must be available, but current status is: in-use."),
        "{}",
        refused.body
    );
    let forced = json!({"snapshot": {"volume_id": id, "force": true}});
    assert_eq!(cloud.ask("POST", "/v3/snapshots", &older, Some(forced)).await.status, 202);
    cloud.cinder.settled().await;
    let snapshots =
        cloud.get(&format!("/v3/snapshots?volume_id={id}&sort_dir=asc&sort_key=created_at")).await;
    let newest = cloud.get("/v3/snapshots?limit=1").await["snapshots"][0]["id"].clone();
    assert_eq!(snapshots["snapshots"].as_array().unwrap().len(), 2);
    let revert = json!({"revert": {"snapshot_id": newest}});
    let action = format!("/v3/volumes/{id}/action");
    assert_eq!(cloud.post(&action, revert.clone()).await.status, 409, "in use");
    cloud.call("member", "DELETE", &format!("/v3/attachments/{attachment}"), None).await;
    assert_eq!(cloud.post(&action, revert).await.status, 202);
    cloud.cinder.settled().await;
    assert_eq!(cloud.status(&id).await, "available");
    let copy = cloud.volume(json!({"snapshot_id": newest, "size": 3})).await;
    assert_eq!(cloud.fake.volumes()[&copy], 3 << 30);
    let gone = cloud.call("member", "DELETE", &format!("/v3/volumes/{id}?cascade=true"), None).await;
    assert_eq!(gone.status, 202, "{}", gone.body);
    cloud.cinder.settled().await;
    assert!(cloud.fake.snapshots().is_empty());
    assert_eq!(cloud.get("/v3/snapshots").await, json!({"snapshots": []}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_goes_to_another_project_with_its_key_alone() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(json!({"size": 1})).await;
    let body = json!({"transfer": {"volume_id": id, "name": "gift"}});
    let other = format!("member@{OTHER}");
    assert_eq!(cloud.call(&other, "POST", "/v3/volume-transfers", Some(body.clone())).await.status, 404);
    assert_eq!(cloud.call("reader", "POST", "/v3/volume-transfers", Some(body.clone())).await.status, 403);
    let made = cloud.post("/v3/volume-transfers", body.clone()).await;
    assert_eq!(made.status, 202, "{}", made.body);
    let (transfer, key) =
        (made.body["transfer"]["id"].as_str().unwrap(), made.body["transfer"]["auth_key"].clone());
    assert_eq!(cloud.status(&id).await, "awaiting-transfer");
    assert_eq!(cloud.post("/v3/volume-transfers", body).await.status, 400, "once");
    let shown = cloud.get(&format!("/v3/os-volume-transfer/{transfer}")).await;
    assert!(shown["transfer"].get("auth_key").is_none(), "the key is told once");
    let accept = format!("/v3/volume-transfers/{transfer}/accept");
    let with = |key: Json| Some(json!({"accept": {"auth_key": key}}));
    assert_eq!(cloud.call(&other, "POST", &accept, with(json!("0000"))).await.status, 400);
    let limit = json!({"quota_set": {"volumes": 0}});
    let quota = format!("/v3/os-quota-sets/{OTHER}");
    assert_eq!(cloud.call("admin", "PUT", &quota, Some(limit)).await.status, 200);
    assert_eq!(cloud.call(&other, "POST", &accept, with(key.clone())).await.status, 413, "its quota");
    assert_eq!(cloud.call("admin", "DELETE", &quota, None).await.status, 200);
    assert_eq!(cloud.call(&other, "POST", &accept, with(key.clone())).await.status, 202);
    assert_eq!(cloud.call(&other, "POST", &accept, with(key)).await.status, 404, "once");
    assert_eq!(cloud.call("member", "GET", &format!("/v3/volumes/{id}"), None).await.status, 404);
    assert_eq!(cloud.call(&other, "GET", &format!("/v3/volumes/{id}"), None).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_their_links() {
    let cloud = Cloud::new().await;
    for number in 0..5 {
        cloud.volume(json!({"size": 1, "name": format!("v{number}")})).await;
        cloud.clock.advance(Duration::from_secs(1));
    }
    let mut seen = Vec::new();
    let mut next = Some("/v3/volumes/detail?limit=2&sort=created_at:asc".to_string());
    while let Some(path) = next {
        let page = cloud.get(&path).await;
        seen.extend(page["volumes"].as_array().unwrap().iter().map(|volume| volume["name"].clone()));
        let href = page["volumes_links"][0]["href"].as_str();
        next = href.map(|href| href.strip_prefix("http://c:8776").unwrap().to_string());
    }
    assert_eq!(json!(seen), json!(["v0", "v1", "v2", "v3", "v4"]));
    let newest = cloud.get("/v3/volumes?limit=1&offset=1").await;
    assert_eq!(newest["volumes"][0]["name"], "v3", "newest first, one left out");
    let since = cloud.get("/v3/volumes?created_at=gt:2026-11-20T08:15:33").await;
    assert_eq!(since["volumes"].as_array().unwrap().len(), 2);
    let like = cloud.call("admin", "GET", "/v3/volumes?name~=v&all_tenants=1", None).await;
    assert_eq!(like.body["volumes"].as_array().unwrap().len(), 5);
    let others = cloud.call(&format!("member@{OTHER}"), "GET", "/v3/volumes?all_tenants=1", None).await;
    assert_eq!(others.body, json!({"volumes": []}), "only an administrator sees all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_update_is_seen() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(json!({"size": 1, "metadata": {"a": "b"}})).await;
    let path = format!("/v3/volumes/{id}/metadata");
    let tag = cloud.call("member", "GET", &path, None).await.headers["etag"].to_str().unwrap().to_string();
    let put = async |tag: &str| {
        let headers =
            [("x-auth-token", "member"), ("openstack-api-version", "volume 3.71"), ("if-match", tag)];
        cloud.ask("PUT", &path, &headers, Some(json!({"metadata": {"c": "d"}}))).await.status
    };
    assert_eq!(put(&tag).await, 200);
    assert_eq!(put(&tag).await, 412, "somebody has changed it");
    assert_eq!(put("*").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_becomes_an_image() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(json!({"size": 1, "imageRef": null, "name": "v"})).await;
    let path = format!("/v3/volumes/{id}/action");
    let wanted = json!({"os-volume_upload_image": {"image_name": "i", "protected": true}});
    let asked = join_all((0..2).map(|_| cloud.post(&path, wanted.clone()))).await;
    let mut statuses: Vec<u16> = asked.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 400], "one of two at once");
    let refused = asked.iter().find(|answer| answer.status == 400).unwrap();
    assert_eq!(refused.message(), format!("Invalid volume: Volume {id} status must be available"));
    let shown = &asked.iter().find(|answer| answer.status == 202).unwrap().body["os-volume_upload_image"];
    assert_eq!((&shown["status"], &shown["disk_format"]), (&json!("uploading"), &json!("raw")));
    cloud.cinder.settled().await;
    assert_eq!(cloud.status(&id).await, "available");
    let made = cloud.images.made.lock().clone();
    let (image, bytes) = &made[shown["image_id"].as_str().unwrap()];
    assert_eq!((image.name.as_str(), image.protected, *bytes), ("i", true, Some(1 << 30)));
    // What fails leaves no image.
    let other = json!({"os-volume_upload_image": {"image_name": "j", "disk_format": "qcow2"}});
    cloud.post(&path, other).await;
    cloud.cinder.settled().await;
    assert_eq!((cloud.status(&id).await.as_str(), cloud.images.made.lock().len()), ("available", 1));
    for (token, body, status) in [
        ("reader", wanted.clone(), 403),
        ("member@0e8a7f6c000040008000000000000002", wanted.clone(), 404),
        ("member", json!({"os-volume_upload_image": {"image_name": "i", "visibility": "public"}}), 403),
        ("member", json!({"os-volume_upload_image": {"image_name": ""}}), 400),
        ("member", json!({"os-volume_upload_image": {"image_name": "i", "disk_format": "tar"}}), 400),
        ("member", json!({"os-volume_upload_image": {"image_name": "i", "x": 1}}), 400),
        ("member", json!({"os-volume_upload_image": {"image_name": 5}}), 400),
    ] {
        let answer = cloud.call(token, "POST", &path, Some(body.clone())).await;
        assert_eq!(answer.status, status, "{token} {body}: {}", answer.body);
    }
    // A volume that a server has, only where the operator lets it.
    cloud.attached(&id).await;
    let forced = json!({"os-volume_upload_image": {"image_name": "i", "force": true}});
    assert_eq!(cloud.post(&path, forced).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_grows_while_a_server_has_it() {
    let cloud = Cloud::with(
        Options { quota_gigabytes: 5, ..options() },
        Fake::default(),
        db::testing::sqlite(TABLES, &[]).await.unwrap(),
    )
    .await;
    let id = cloud.volume(json!({"size": 1})).await;
    cloud.attached(&id).await;
    let path = format!("/v3/volumes/{id}/action");
    let to = |size: i64| json!({"os-extend": {"new_size": size}});
    let old = [("x-auth-token", "member"), ("openstack-api-version", "volume 3.41")];
    let refused = cloud.ask("POST", &path, &old, Some(to(2))).await;
    assert_eq!(
        refused.message(),
        format!(
            "Invalid volume: Volume {id} status must be '{{'status': 'available'}}' to extend, currently in-use."
        )
    );
    assert_eq!(cloud.post(&path, to(2)).await.status, 202);
    cloud.cinder.settled().await;
    let volume = cloud.get(&format!("/v3/volumes/{id}")).await["volume"].clone();
    assert_eq!((&volume["status"], &volume["size"]), (&json!("in-use"), &json!(2)));
    assert_eq!(cloud.fake.volumes()[&id], 2 << 30);
    assert_eq!(cloud.post(&path, to(6)).await.status, 413, "quota");
    assert_eq!(cloud.post(&path, to(2)).await.status, 400, "not smaller");
    assert_eq!(cloud.call("reader", "POST", &path, Some(to(3))).await.status, 403);
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

#[tokio::test(flavor = "multi_thread")]
async fn disks_leave_and_come_back() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(json!({"size": 2})).await;
    let path = format!("/v3/volumes/{id}/action");
    let unmanage = json!({"os-unmanage": null});
    assert_eq!(cloud.post(&path, unmanage.clone()).await.status, 403);
    let listed =
        cloud.call("admin", "GET", "/v3/manageable_volumes/detail?host=h1@files%23files", None).await;
    let one = &listed.body["manageable-volumes"][0];
    assert_eq!((&one["safe_to_manage"], &one["cinder_id"]), (&json!(false), &json!(id)));
    let reference = json!({"source-name": format!("volume-{id}")});
    let manage = json!({"volume": {"host": "h1@files", "ref": reference, "name": "back"}});
    let managed = cloud.call("admin", "POST", "/v3/manageable_volumes", Some(manage.clone())).await;
    assert_eq!(managed.message(), "Unable to manage existing volume. The volume is already managed");
    let attachment = cloud.attached(&id).await;
    assert_eq!(cloud.call("admin", "POST", &path, Some(unmanage.clone())).await.status, 400, "attached");
    cloud.call("member", "DELETE", &format!("/v3/attachments/{attachment}"), None).await;
    assert_eq!(cloud.call("admin", "POST", &path, Some(unmanage)).await.status, 202);
    cloud.cinder.settled().await;
    assert_eq!(cloud.call("member", "GET", &format!("/v3/volumes/{id}"), None).await.status, 404);
    let listed = cloud.call("admin", "GET", "/v3/manageable_volumes?host=h1@files", None).await.body;
    let left = json!([{"reference": reference, "size": 2, "safe_to_manage": true}]);
    assert_eq!(listed["manageable-volumes"], left);
    let managed = cloud.call("admin", "POST", "/v3/manageable_volumes", Some(manage.clone())).await;
    assert_eq!((managed.status, &managed.body["volume"]["status"]), (202, &json!("creating")));
    cloud.cinder.settled().await;
    let back = managed.body["volume"]["id"].as_str().unwrap().to_string();
    let shown = cloud.call("admin", "GET", &format!("/v3/volumes/{back}"), None).await.body;
    assert_eq!((&shown["volume"]["status"], &shown["volume"]["size"]), (&json!("available"), &json!(2)));
    // The same disk again is not there.
    let again = cloud.call("admin", "POST", "/v3/manageable_volumes", Some(manage)).await;
    cloud.cinder.settled().await;
    let again = format!("/v3/volumes/{}", again.body["volume"]["id"].as_str().unwrap());
    assert_eq!(cloud.call("admin", "GET", &again, None).await.body["volume"]["status"], "error");
    assert_eq!(cloud.call("admin", "DELETE", &again, None).await.status, 202);

    let snapshot = json!({"snapshot": {"volume_id": back}});
    let taken = cloud.call("admin", "POST", "/v3/snapshots", Some(snapshot)).await.body;
    let taken = taken["snapshot"]["id"].as_str().unwrap().to_string();
    cloud.cinder.settled().await;
    let path = format!("/v3/snapshots/{taken}/action");
    assert_eq!(cloud.call("admin", "POST", &path, Some(json!({"os-unmanage": {}}))).await.status, 202);
    cloud.cinder.settled().await;
    assert_eq!(cloud.call("admin", "GET", &format!("/v3/snapshots/{taken}"), None).await.status, 404);
    let reference = json!({"source-name": format!("_snapshot-{taken}")});
    let manage =
        json!({"snapshot": {"volume_id": back, "ref": reference, "name": "s", "metadata": {"a": "b"}}});
    let managed = cloud.call("admin", "POST", "/v3/manageable_snapshots", Some(manage.clone())).await;
    assert_eq!(managed.status, 202, "{}", managed.body);
    cloud.cinder.settled().await;
    let path = format!("/v3/snapshots/{}", managed.body["snapshot"]["id"].as_str().unwrap());
    let shown = cloud.call("admin", "GET", &path, None).await.body;
    assert_eq!((&shown["snapshot"]["status"], &shown["snapshot"]["size"]), (&json!("available"), &json!(2)));
    for (token, path, body, status) in [
        ("member", "/v3/manageable_snapshots", manage.clone(), 403),
        ("admin", "/v3/manageable_snapshots", json!({"snapshot": {"volume_id": NOBODY, "ref": {}}}), 404),
        ("admin", "/v3/manageable_snapshots", json!({"snapshot": {"ref": {}}}), 400),
        ("member", "/v3/manageable_volumes", json!({"volume": {"host": "h1@files", "ref": {}}}), 403),
        ("admin", "/v3/manageable_volumes", json!({"volume": {"host": "nowhere", "ref": {}}}), 400),
        ("admin", "/v3/manageable_volumes", json!({"volume": {"ref": {}}}), 400),
        ("admin", "/v3/manageable_volumes", json!({"volume": {"host": "h1@files", "ref": 5}}), 400),
    ] {
        let answer = cloud.call(token, "POST", path, Some(body.clone())).await;
        assert_eq!(answer.status, status, "{token} {path} {body}: {}", answer.body);
    }
    for (path, status) in [
        ("/v3/manageable_volumes", 400),
        ("/v3/manageable_volumes?host=nowhere", 404),
        ("/v3/manageable_volumes?host=h1@files&sort=name", 400),
        ("/v3/manageable_snapshots?host=h1@files", 200),
        ("/v3/os-volume-manage?host=h1@files", 200),
    ] {
        assert_eq!(cloud.call("admin", "GET", path, None).await.status, status, "{path}");
        assert_eq!(cloud.call("member", "GET", path, None).await.status, 403, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn encryption_of_types_is_written_down_and_no_volume_pretends_to_have_it() {
    let cloud = Cloud::new().await;
    let kind = json!({"volume_type": {"name": "secret"}});
    let kind = cloud.call("admin", "POST", "/v3/types", Some(kind)).await.body;
    let kind = kind["volume_type"]["id"].as_str().unwrap().to_string();
    let path = format!("/v3/types/{kind}/encryption");
    let luks =
        json!({"encryption": {"provider": "luks", "control_location": "front-end", "key_size": "256"}});
    assert_eq!(cloud.call("admin", "GET", &path, None).await.body, json!({}));
    assert_eq!(cloud.post(&path, luks.clone()).await.status, 403);
    for wrong in [
        json!({"encryption": {"provider": "luks"}}),
        json!({"encryption": {"provider": 5, "control_location": "front-end"}}),
        json!({"encryption": {"provider": "luks", "control_location": "nowhere"}}),
        json!({"encryption": {"provider": "luks", "control_location": "front-end", "key_size": "x"}}),
        json!({"encryption": {"provider": "luks", "control_location": "front-end", "key_size": -1}}),
    ] {
        let answer = cloud.call("admin", "POST", &path, Some(wrong.clone())).await;
        assert_eq!(answer.status, 400, "{wrong}");
    }
    let made = cloud.call("admin", "POST", &path, Some(luks.clone())).await;
    assert_eq!((made.status, &made.body["encryption"]["key_size"]), (200, &json!(256)));
    assert_eq!(cloud.call("admin", "POST", &path, Some(luks.clone())).await.status, 400, "twice");
    let elsewhere = format!("/v3/types/{NOBODY}/encryption");
    assert_eq!(cloud.call("admin", "POST", &elsewhere, Some(luks)).await.status, 404);
    let one = format!("{path}/x");
    let smaller = json!({"encryption": {"key_size": 128}});
    assert_eq!(cloud.call("admin", "PUT", &one, Some(smaller.clone())).await.body, smaller);
    let size = cloud.call("admin", "GET", &format!("{path}/key_size"), None).await.body;
    assert_eq!(size, json!({"key_size": 128}));

    let answer = cloud.post("/v3/volumes", json!({"volume": {"size": 1, "volume_type": "secret"}})).await;
    let id = answer.body["volume"]["id"].as_str().unwrap().to_string();
    cloud.cinder.settled().await;
    assert_eq!(cloud.status(&id).await, "error", "no back end encrypts");
    assert!(!cloud.fake.volumes().contains_key(&id));
    assert_eq!(cloud.call("admin", "DELETE", &one, None).await.status, 400, "in use");
    cloud.call("member", "DELETE", &format!("/v3/volumes/{id}"), None).await;
    cloud.cinder.settled().await;
    assert_eq!(cloud.call("admin", "DELETE", &one, None).await.status, 202);
    assert_eq!(cloud.call("admin", "DELETE", &one, None).await.status, 404);
    let plain = cloud.volume(json!({"size": 1})).await;
    let key = cloud.get(&format!("/v3/volumes/{plain}/encryption")).await;
    assert_eq!(key, json!({"encryption_key_id": null}));
}
