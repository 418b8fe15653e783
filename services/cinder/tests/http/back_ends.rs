//! Where volumes go, and back ends that refuse.

use crate::cloud::{Cloud, OTHER, PROJECT, fake, options};
use base::Json;
use cinder::TABLES;
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn why_no_back_end_fits_is_told() {
    let cloud =
        Cloud::with(options(), fake().with_capacity_gb(1.0), db::testing::sqlite(TABLES, &[]).await.unwrap())
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
