//! Volumes that go to another project.

use crate::cloud::{Cloud, OTHER};
use base::Json;
use serde_json::json;

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
