//! Snapshots.

use crate::cloud::Cloud;
use serde_json::json;

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
