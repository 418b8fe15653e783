//! Backups: full and incremental, back into volumes, to another cloud; and what is refused.

use crate::cloud::{Cloud, NOBODY, OTHER, options};
use base::Json;
use cinder::{Options, TABLES};
use serde_json::json;

async fn backup(cloud: &Cloud, body: Json) -> String {
    let answer = cloud.post("/v3/backups", json!({"backup": body})).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    cloud.cinder.settled().await;
    answer.body["backup"]["id"].as_str().unwrap().to_string()
}

async fn show(cloud: &Cloud, id: &str) -> Json {
    cloud.get(&format!("/v3/backups/{id}")).await["backup"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_volume_and_back() {
    for database in db::testing::all(TABLES, &[]).await.unwrap() {
        let cloud = Cloud::with(options(), crate::cloud::fake(), database).await;
        let volume = cloud.volume(json!({"size": 2, "metadata": {"k": "v"}})).await;
        let full = backup(&cloud, json!({"volume_id": volume, "name": "full", "metadata": {"a": "b"}})).await;
        let shown = show(&cloud, &full).await;
        assert_eq!((&shown["status"], &shown["size"]), (&json!("available"), &json!(2)));
        assert_eq!(shown["metadata"], json!({"a": "b"}));
        assert_eq!(
            (&shown["is_incremental"], &shown["has_dependent_backups"]),
            (&json!(false), &json!(false))
        );
        assert_eq!(cloud.status(&volume).await, "available");

        cloud.clock.advance(std::time::Duration::from_secs(60));
        cloud.report().await;
        let more = backup(&cloud, json!({"volume_id": volume, "incremental": true})).await;
        assert_eq!(show(&cloud, &more).await["is_incremental"], true);
        assert_eq!(show(&cloud, &full).await["has_dependent_backups"], true);
        let needed = cloud.call("member", "DELETE", &format!("/v3/backups/{full}"), None).await;
        assert_eq!(needed.status, 400);
        assert_eq!(needed.message(), "Invalid backup: Incremental backups exist for this backup.");

        // Into a new volume, by both ways, and onto one that is there.
        let restored = cloud.post(&format!("/v3/backups/{more}/restore"), json!({"restore": {}})).await;
        assert_eq!(restored.status, 202, "{}", restored.body);
        cloud.cinder.settled().await;
        let new = restored.body["restore"]["volume_id"].as_str().unwrap();
        assert_eq!(restored.body["restore"]["volume_name"], format!("restore_backup_{more}"));
        assert_eq!(cloud.status(new).await, "available");
        let made = cloud.get(&format!("/v3/volumes/{new}")).await;
        assert_eq!(made["volume"]["metadata"], json!({"k": "v"}));
        assert_eq!(show(&cloud, &more).await["status"], "available");
        let created = cloud.volume(json!({"backup_id": full})).await;
        assert_eq!(cloud.fake.volumes()[&created], 2 << 30);
        let onto = json!({"restore": {"volume_id": volume}});
        let restored = cloud.post(&format!("/v3/backups/{full}/restore"), onto).await;
        assert_eq!(restored.status, 202, "{}", restored.body);
        cloud.cinder.settled().await;
        assert_eq!(cloud.status(&volume).await, "available");

        for id in [&more, &full] {
            let deleted = cloud.call("member", "DELETE", &format!("/v3/backups/{id}"), None).await;
            assert_eq!(deleted.status, 202, "{}", deleted.body);
            cloud.cinder.settled().await;
        }
        assert_eq!(cloud.get("/v3/backups").await["backups"], json!([]));
        assert!(cloud.fake.backups().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_snapshot_and_of_a_volume_that_a_server_has() {
    let cloud = Cloud::new().await;
    let volume = cloud.volume(json!({"size": 1})).await;
    let snapshot = cloud.post("/v3/snapshots", json!({"snapshot": {"volume_id": volume}})).await;
    cloud.cinder.settled().await;
    let snapshot = snapshot.body["snapshot"]["id"].as_str().unwrap();
    let kept = backup(&cloud, json!({"volume_id": volume, "snapshot_id": snapshot})).await;
    assert_eq!(show(&cloud, &kept).await["snapshot_id"], snapshot);
    assert_eq!(cloud.get(&format!("/v3/snapshots/{snapshot}")).await["snapshot"]["status"], "available");
    cloud.attached(&volume).await;
    let refused = cloud.post("/v3/backups", json!({"backup": {"volume_id": volume}})).await;
    assert_eq!(refused.message(), "Invalid volume: Backing up an in-use volume must use the force flag.");
    backup(&cloud, json!({"volume_id": volume, "force": true})).await;
    assert_eq!(cloud.status(&volume).await, "in-use");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cloud_takes_a_backup_by_its_record() {
    let cloud = Cloud::new().await;
    let volume = cloud.volume(json!({"size": 1})).await;
    let id = backup(&cloud, json!({"volume_id": volume, "name": "b"})).await;
    let path = format!("/v3/backups/{id}/export_record");
    assert_eq!(cloud.call("member", "GET", &path, None).await.status, 403);
    let record = cloud.call("admin", "GET", &path, None).await.body;
    let import = async |record: &Json| {
        cloud.call("admin", "POST", "/v3/backups/import_record", Some(record.clone())).await
    };
    let twice = import(&record).await;
    assert_eq!((twice.status, twice.message()), (400, "Invalid backup: Backup already exists in database."));
    // The other cloud: it does not know the backup, and sees the same place.
    let other =
        Cloud::with(options(), cloud.fake.clone(), db::testing::sqlite(TABLES, &[]).await.unwrap()).await;
    let taken = other.call("admin", "POST", "/v3/backups/import_record", Some(record.clone())).await;
    assert_eq!((taken.status, &taken.body["backup"]["id"]), (201, &json!(id)), "{}", taken.body);
    assert_eq!(show(&other, &id).await["name"], "b");
    let new = other.volume(json!({"backup_id": id})).await;
    assert_eq!(other.fake.volumes()[&new], 1 << 30);

    // Under another id in the same cloud: the data stays as long as one of them does.
    use base64::{Engine, prelude::BASE64_STANDARD};
    let text = BASE64_STANDARD.decode(record["backup-record"]["backup_url"].as_str().unwrap()).unwrap();
    let mut renamed: Json = serde_json::from_slice(&text).unwrap();
    renamed["id"] = "0e8a7f6c-0000-4000-8000-0000000000bb".into();
    let mut under_other_id = record.clone();
    under_other_id["backup-record"]["backup_url"] = BASE64_STANDARD.encode(renamed.to_string()).into();
    let second = import(&under_other_id).await;
    assert_eq!(second.status, 201, "{}", second.body);
    let second = second.body["backup"]["id"].as_str().unwrap();
    cloud.call("member", "DELETE", &format!("/v3/backups/{id}"), None).await;
    cloud.cinder.settled().await;
    assert_eq!(cloud.fake.backups().len(), 1);
    cloud.call("admin", "DELETE", &format!("/v3/backups/{second}"), None).await;
    cloud.cinder.settled().await;
    assert!(cloud.fake.backups().is_empty());
    let gone = import(&record).await;
    assert_eq!(gone.status, 400, "{}", gone.body);
    for (wrong, status) in [
        (json!({"backup_service": "other", "backup_url": record["backup-record"]["backup_url"]}), 503),
        (json!({"backup_service": "x", "backup_url": "e30="}), 400),
        (json!({"backup_service": "x", "backup_url": "?"}), 400),
        (json!({"backup_url": "e30="}), 400),
    ] {
        let refused = import(&json!({"backup-record": wrong})).await;
        assert_eq!(refused.status, status, "{wrong}: {}", refused.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_told_and_gives_the_volume_back() {
    let cloud = Cloud::new().await;
    let volume = cloud.volume(json!({"size": 1})).await;
    cloud.refuse("the disk is full");
    let id = backup(&cloud, json!({"volume_id": volume})).await;
    let shown = show(&cloud, &id).await;
    assert_eq!((&shown["status"], &shown["fail_reason"]), (&json!("error"), &json!("the disk is full")));
    assert_eq!(cloud.status(&volume).await, "available");
    let restore = cloud.post(&format!("/v3/backups/{id}/restore"), json!({"restore": {}})).await;
    assert_eq!(restore.message(), "Invalid backup: Backup status must be available");
    let path = format!("/v3/backups/{id}/action");
    let reset = json!({"os-reset_status": {"status": "available"}});
    assert_eq!(cloud.post(&path, reset.clone()).await.status, 403);
    assert_eq!(cloud.call("admin", "POST", &path, Some(reset)).await.status, 202);
    // It says that it is there, and is not.
    let onto = json!({"restore": {"volume_id": volume}});
    assert_eq!(cloud.post(&format!("/v3/backups/{id}/restore"), onto).await.status, 202);
    cloud.cinder.settled().await;
    assert_eq!(cloud.status(&volume).await, "error_restoring");
    assert_eq!(show(&cloud, &id).await["status"], "available");
    let messages = cloud.get("/v3/messages").await["messages"].as_array().unwrap().len();
    assert_eq!(messages, 2);
    let force = json!({"os-force_delete": {}});
    assert_eq!(cloud.call("admin", "POST", &path, Some(force)).await.status, 202);
    cloud.cinder.settled().await;
    assert_eq!(cloud.call("member", "GET", &format!("/v3/backups/{id}"), None).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals() {
    let quota = Options { quota_backups: 2, quota_backup_gigabytes: 2, ..options() };
    let cloud =
        Cloud::with(quota, crate::cloud::fake(), db::testing::sqlite(TABLES, &[]).await.unwrap()).await;
    let volume = cloud.volume(json!({"size": 1})).await;
    let large = cloud.volume(json!({"size": 3})).await;
    let other = cloud.volume(json!({"size": 1})).await;
    let snapshot = cloud.post("/v3/snapshots", json!({"snapshot": {"volume_id": other}})).await;
    cloud.cinder.settled().await;
    let snapshot = snapshot.body["snapshot"]["id"].as_str().unwrap();
    let long = "x".repeat(256);
    for (body, status) in [
        (json!({}), 400),
        (json!({"volume_id": "x"}), 400),
        (json!({"volume_id": volume, "name": long}), 400),
        (json!({"volume_id": volume, "container": long}), 400),
        (json!({"volume_id": volume, "force": "maybe"}), 400),
        (json!({"volume_id": volume, "metadata": {"a": 1}}), 400),
        (json!({"volume_id": volume, "colour": "red"}), 400),
        (json!({"volume_id": volume, "incremental": true}), 400),
        (json!({"volume_id": volume, "snapshot_id": snapshot}), 400),
        (json!({"volume_id": volume, "snapshot_id": NOBODY}), 404),
        (json!({"volume_id": NOBODY}), 404),
        (json!({"volume_id": large}), 413),
    ] {
        let refused = cloud.post("/v3/backups", json!({"backup": body})).await;
        assert_eq!(refused.status, status, "{body}: {}", refused.body);
    }
    let id = backup(&cloud, json!({"volume_id": volume})).await;
    let one = format!("/v3/backups/{id}");
    let foreign = format!("member@{OTHER}");
    let asked = [
        ("GET", one.clone(), Json::Null),
        ("PUT", one.clone(), json!({"backup": {"name": "n"}})),
        ("POST", format!("{one}/restore"), json!({"restore": {}})),
        ("DELETE", one.clone(), Json::Null),
    ];
    for (method, path, body) in &asked {
        let body = (!body.is_null()).then(|| body.clone());
        let seen = cloud.call(&foreign, method, path, body.clone()).await;
        assert_eq!(seen.status, 404, "{method} {path}: {}", seen.body);
        if *method != "GET" {
            assert_eq!(cloud.call("reader", method, path, body).await.status, 403, "{method} {path}");
        }
    }
    let reader = json!({"backup": {"volume_id": volume}});
    assert_eq!(cloud.call("reader", "POST", "/v3/backups", Some(reader)).await.status, 403);
    for (body, status) in [
        (json!({"restore": {"volume_id": NOBODY}}), 404),
        (json!({"restore": {"volume_id": "x"}}), 400),
        (json!({"restore": {"name": long}}), 400),
        (json!({"restart": {}}), 400),
    ] {
        let refused = cloud.post(&format!("{one}/restore"), body.clone()).await;
        assert_eq!(refused.status, status, "{body}: {}", refused.body);
    }
    let update = cloud.call("member", "PUT", &one, Some(json!({"backup": {"name": 1}}))).await;
    assert_eq!(update.status, 400);
    let small = cloud.post("/v3/volumes", json!({"volume": {"backup_id": NOBODY, "size": 1}})).await;
    assert_eq!(small.status, 404, "{}", small.body);

    // Ten at once against a quota of two, of which one is used.
    let all = futures::future::join_all(
        (0..10).map(|_| cloud.post("/v3/backups", json!({"backup": {"volume_id": other, "force": true}}))),
    );
    let accepted = all.await.iter().filter(|answer| answer.status == 202).count();
    assert_eq!(accepted, 1);
}
