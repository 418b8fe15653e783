//! Disks that leave and come back.

use crate::cloud::{Cloud, NOBODY};
use serde_json::json;

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
