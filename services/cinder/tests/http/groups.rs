//! Groups of volumes and their snapshots, from beginning to end; and what is refused.

use crate::cloud::{Cloud, NOBODY, OTHER, options};
use base::Json;
use cinder::{Options, TABLES};
use serde_json::json;

/// A type of groups, and the type of volumes that are in them.
async fn types(cloud: &Cloud) -> (String, String) {
    let body = json!({"group_type": {"name": "g", "group_specs": {"a": "b"}}});
    let made = cloud.call("admin", "POST", "/v3/group_types", Some(body)).await;
    assert_eq!(made.status, 202, "{}", made.body);
    let kinds = cloud.get("/v3/types").await;
    let text = |json: &Json| json.as_str().unwrap().to_string();
    (text(&made.body["group_type"]["id"]), text(&kinds["volume_types"][0]["id"]))
}

async fn group(cloud: &Cloud, group_type: &str, kind: &str) -> String {
    let body = json!({"group": {"group_type": group_type, "volume_types": [kind], "name": "n"}});
    let made = cloud.post("/v3/groups", body).await;
    assert_eq!(made.status, 202, "{}", made.body);
    cloud.cinder.settled().await;
    made.body["group"]["id"].as_str().unwrap().to_string()
}

async fn status(cloud: &Cloud, id: &str) -> Json {
    cloud.get(&format!("/v3/groups/{id}")).await["group"]["status"].clone()
}

async fn act(cloud: &Cloud, id: &str, body: Json) -> crate::cloud::Answer {
    let answer = cloud.post(&format!("/v3/groups/{id}/action"), body).await;
    cloud.cinder.settled().await;
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_copies_and_back() {
    for database in db::testing::all(TABLES, &[]).await.unwrap() {
        let cloud = Cloud::with(options(), crate::cloud::fake(), database).await;
        let (group_type, kind) = types(&cloud).await;
        let id = group(&cloud, &group_type, &kind).await;
        assert_eq!(status(&cloud, &id).await, "available");
        let inside = cloud.volume(json!({"size": 1, "volume_type": kind, "group_id": id})).await;
        let added = cloud.volume(json!({"size": 2})).await;
        let update = json!({"group": {"add_volumes": added}});
        let path = format!("/v3/groups/{id}");
        assert_eq!(cloud.call("member", "PUT", &path, Some(update)).await.status, 202);
        let shown = cloud.get(&format!("{path}?list_volume=True")).await;
        assert_eq!(shown["group"]["volumes"].as_array().unwrap().len(), 2);
        let alone = cloud.call("member", "DELETE", &format!("/v3/volumes/{inside}"), None).await;
        assert_eq!(alone.status, 400, "it belongs to a group");

        let body = json!({"group_snapshot": {"group_id": id, "name": "s"}});
        let kept = cloud.post("/v3/group_snapshots", body).await;
        assert_eq!(kept.status, 202, "{}", kept.body);
        cloud.cinder.settled().await;
        let kept = kept.body["group_snapshot"]["id"].as_str().unwrap();
        let snapshot_path = format!("/v3/group_snapshots/{kept}");
        assert_eq!(cloud.get(&snapshot_path).await["group_snapshot"]["status"], "available");
        assert_eq!(cloud.fake.snapshots().len(), 2);
        let with_snapshots = act(&cloud, &id, json!({"delete": {"delete-volumes": true}})).await;
        assert_eq!(with_snapshots.message(), "Invalid Group: Group has existing snapshots.");

        for source in [json!({"group_snapshot_id": kept}), json!({"source_group_id": id})] {
            let copy = cloud.post("/v3/groups/action", json!({"create-from-src": source})).await;
            assert_eq!(copy.status, 202, "{}", copy.body);
            cloud.cinder.settled().await;
            let copy = copy.body["group"]["id"].as_str().unwrap();
            assert_eq!(status(&cloud, copy).await, "available");
            let shown = cloud.get(&format!("/v3/groups/{copy}?list_volume=True")).await;
            assert_eq!(shown["group"]["volumes"].as_array().unwrap().len(), 2);
            assert_eq!(act(&cloud, copy, json!({"delete": {"delete-volumes": true}})).await.status, 202);
            assert_eq!(cloud.call("member", "GET", &format!("/v3/groups/{copy}"), None).await.status, 404);
        }
        assert_eq!(cloud.call("member", "DELETE", &snapshot_path, None).await.status, 202);
        cloud.cinder.settled().await;
        assert!(cloud.fake.snapshots().is_empty());
        let remove = json!({"group": {"remove_volumes": added}});
        assert_eq!(cloud.call("member", "PUT", &path, Some(remove)).await.status, 202);
        let full = act(&cloud, &id, json!({"delete": {"delete-volumes": false}})).await;
        assert_eq!(full.status, 400, "{}", full.body);
        assert_eq!(act(&cloud, &id, json!({"delete": {"delete-volumes": true}})).await.status, 202);
        assert_eq!(cloud.fake.volumes().into_keys().collect::<Vec<_>>(), [added.as_str()]);
        assert_eq!(cloud.get("/v3/groups").await["groups"], json!([]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_fails_is_in_error_and_can_be_deleted() {
    let cloud = Cloud::new().await;
    let (group_type, kind) = types(&cloud).await;
    let id = group(&cloud, &group_type, &kind).await;
    cloud.volume(json!({"size": 1, "volume_type": kind, "group_id": id})).await;
    cloud.refuse("the disk is full");
    let copy = cloud.post("/v3/groups/action", json!({"create-from-src": {"source_group_id": id}})).await;
    cloud.cinder.settled().await;
    let copy = copy.body["group"]["id"].as_str().unwrap();
    assert_eq!(status(&cloud, copy).await, "error");
    assert_eq!(act(&cloud, copy, json!({"delete": {"delete-volumes": true}})).await.status, 202);
    assert_eq!(cloud.call("member", "GET", &format!("/v3/groups/{copy}"), None).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals() {
    let quota = Options { quota_groups: 1, ..options() };
    let cloud =
        Cloud::with(quota, crate::cloud::fake(), db::testing::sqlite(TABLES, &[]).await.unwrap()).await;
    let (group_type, kind) = types(&cloud).await;
    let taken = json!({"group_type": {"name": "g"}});
    assert_eq!(cloud.call("admin", "POST", "/v3/group_types", Some(taken.clone())).await.status, 409);
    assert_eq!(cloud.post("/v3/group_types", taken).await.status, 403);
    let long = "x".repeat(256);
    for body in [json!({}), json!({"name": ""}), json!({"name": long}), json!({"name": "n", "a": 1})] {
        let refused = cloud.call("admin", "POST", "/v3/group_types", Some(json!({"group_type": body}))).await;
        assert_eq!(refused.status, 400, "{body}");
    }
    for (body, status) in [
        (json!({"volume_types": [kind]}), 400),
        (json!({"group_type": group_type, "volume_types": []}), 400),
        (json!({"group_type": group_type, "volume_types": kind}), 400),
        (json!({"group_type": group_type, "volume_types": [kind], "name": long}), 400),
        (json!({"group_type": NOBODY, "volume_types": [kind]}), 404),
        (json!({"group_type": group_type, "volume_types": [NOBODY]}), 404),
        (json!({"group_type": group_type, "volume_types": [kind], "availability_zone": "moon"}), 400),
    ] {
        let refused = cloud.post("/v3/groups", json!({"group": body})).await;
        assert_eq!(refused.status, status, "{body}: {}", refused.body);
    }
    let id = group(&cloud, &group_type, &kind).await;
    let body = json!({"group": {"group_type": group_type, "volume_types": [kind]}});
    assert_eq!(cloud.post("/v3/groups", body).await.status, 413, "the quota is one");
    let used = cloud.call("admin", "DELETE", &format!("/v3/group_types/{group_type}"), None).await;
    assert_eq!(used.status, 400, "{}", used.body);

    let one = format!("/v3/groups/{id}");
    let foreign = format!("member@{OTHER}");
    for (method, path, body) in [
        ("GET", one.clone(), None),
        ("PUT", one.clone(), Some(json!({"group": {"name": "m"}}))),
        ("POST", format!("{one}/action"), Some(json!({"delete": {"delete-volumes": false}}))),
        ("POST", "/v3/group_snapshots".into(), Some(json!({"group_snapshot": {"group_id": id}}))),
    ] {
        assert_eq!(cloud.call(&foreign, method, &path, body.clone()).await.status, 404, "{method} {path}");
        if method != "GET" {
            assert_eq!(cloud.call("reader", method, &path, body).await.status, 403, "{method} {path}");
        }
    }
    let stranger = cloud.call(&foreign, "POST", "/v3/volumes", Some(json!({"volume": {"size": 1}}))).await;
    cloud.cinder.settled().await;
    let stranger = stranger.body["volume"]["id"].as_str().unwrap();
    for body in [
        json!({"name": "n"}),
        json!({"add_volumes": stranger}),
        json!({"add_volumes": NOBODY}),
        json!({"remove_volumes": NOBODY}),
        json!({"add_volumes": NOBODY, "remove_volumes": NOBODY}),
        json!({"name": long}),
        json!({}),
    ] {
        let refused = cloud.call("member", "PUT", &one, Some(json!({"group": body}))).await;
        assert_eq!(refused.status, 400, "{body}: {}", refused.body);
    }
    let empty = cloud.post("/v3/group_snapshots", json!({"group_snapshot": {"group_id": id}})).await;
    assert_eq!(empty.status, 400, "{}", empty.body);
    for source in [
        json!({}),
        json!({"group_snapshot_id": NOBODY, "source_group_id": id}),
        json!({"source_group_id": id}),
    ] {
        let refused = cloud.post("/v3/groups/action", json!({"create-from-src": source})).await;
        assert_eq!(refused.status, 400, "{source}: {}", refused.body);
    }
    let reset = json!({"reset_status": {"status": "error"}});
    assert_eq!(act(&cloud, &id, reset.clone()).await.status, 403);
    let path = format!("{one}/action");
    assert_eq!(cloud.call("admin", "POST", &path, Some(reset)).await.status, 202);
    for verb in
        ["enable_replication", "disable_replication", "failover_replication", "list_replication_targets"]
    {
        let refused = act(&cloud, &id, json!({verb: {}})).await;
        assert_eq!(
            refused.message(),
            format!("Invalid group type: Group {id} is not a replication group type.")
        );
    }
    let wrong = json!({"reset_status": {"status": "happy"}});
    assert_eq!(cloud.call("admin", "POST", &path, Some(wrong)).await.status, 400);
    assert_eq!(status(&cloud, &id).await, "error");
}
