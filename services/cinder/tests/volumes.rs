//! Volumes over HTTP: stories, and every write path with what it must refuse.

mod common;

use common::{Cloud, IMAGE, OTHER, PROJECT, options};
use serde_json::{Value as Json, json};

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_a_server_and_back() {
    let cloud = Cloud::new().await;
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
