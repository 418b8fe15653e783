//! Former versions: with `X-Versions-Enabled`, and in the two older ways.

use crate::cloud::{Cloud, OWNER, clouds};
use serde_json::Value;

/// Name, version and whether it is the latest, of all versions.
async fn all(cloud: &Cloud, query: &str) -> Vec<(String, String, bool)> {
    let listed = cloud.get(&format!("/c?versions&{query}")).await;
    assert_eq!(listed.status, 200);
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let one = |line: &Value| (text(&line["name"]), text(&line["version_id"]), line["is_latest"] == true);
    listed.body.as_array().unwrap().iter().map(one).collect()
}

#[tokio::test]
async fn every_version_stays() {
    for cloud in clouds().await {
        cloud.make("/c", &[], "").await;
        cloud.make("/c/o", &[], "before").await;
        assert_eq!(cloud.post("/c", &[("x-versions-enabled", "true")]).await.status, 204);
        assert_eq!(cloud.head("/c").await.header("x-versions-enabled"), "True");
        let first = cloud.make("/c/o", &[], "one").await.header("x-object-version-id").to_string();
        let second = cloud.make("/c/o", &[], "second").await.header("x-object-version-id").to_string();
        let listed = all(&cloud, "").await;
        assert_eq!(listed.len(), 3);
        assert_eq!(listed[0], ("o".into(), second.clone(), true));
        assert_eq!(listed[1], ("o".into(), first.clone(), false));
        let page = all(&cloud, &format!("marker=o&version_marker={first}")).await;
        assert_eq!(page, listed[2..]);
        assert_eq!(all(&cloud, "limit=1").await, listed[..1]);
        assert_eq!(cloud.head("/c").await.header("x-container-bytes-used"), "15");
        assert_eq!(cloud.get(&format!("/c/o?version-id={first}")).await.text(), "one");
        assert_eq!(cloud.get("/c/o").await.text(), "second");
        // Deleted, it is all there still.
        let marker = cloud.delete("/c/o").await;
        assert_eq!(marker.status, 204);
        assert_eq!(cloud.get("/c/o").await.status, 404);
        assert_eq!(cloud.names("/c").await, "");
        let marker = marker.header("x-object-version-id").to_string();
        assert_eq!(cloud.get(&format!("/c/o?version-id={marker}")).await.status, 404);
        assert_eq!(all(&cloud, "").await[0], ("o".into(), marker.clone(), true));
        assert_eq!(cloud.delete("/c").await.status, 409);
        // Back again, then really gone.
        let back = cloud.put(&format!("/c/o?version-id={first}"), &[], "").await;
        assert_eq!((back.status, back.header("x-object-version-id")), (201, first.as_str()));
        assert_eq!(cloud.get("/c/o").await.text(), "one");
        let gone = cloud.delete(&format!("/c/o?version-id={first}")).await;
        assert_eq!((gone.status, gone.header("x-object-current-version-id")), (204, "null"));
        assert_eq!(cloud.get("/c/o").await.status, 404);
        for (_, version, _) in all(&cloud, "").await {
            assert_eq!(cloud.delete(&format!("/c/o?version-id={version}")).await.status, 204);
        }
        assert_eq!(cloud.files().len(), 0);
        assert_eq!(cloud.delete("/c").await.status, 204);
    }
}

#[tokio::test]
async fn what_is_no_version() {
    let cloud = Cloud::small().await;
    cloud.make("/c", &[("x-versions-enabled", "true")], "").await;
    cloud.make("/c/o", &[], "one").await;
    for (method, query, status) in [
        ("GET", "version-id=x", 400),
        ("GET", "version-id=1.00000", 404),
        ("GET", "version-id=null", 404),
        ("DELETE", "version-id=1.00000", 404),
        ("PUT", "version-id=1.00000", 404),
        ("PUT", "version-id=null", 400),
    ] {
        let path = format!("/c/o?{query}");
        let answer = cloud.ask(OWNER, method, &path, &[("content-length", "0")], "").await;
        assert_eq!(answer.status, status, "{method} {query}");
    }
    assert_eq!(cloud.get("/c?versions&version_marker=1.00000").await.status, 400);
    let both = [("x-versions-location", "a"), ("x-history-location", "a")];
    assert_eq!(cloud.put("/d", &both, "").await.status, 400);
    cloud.make("/d", &both[..1], "").await;
    assert_eq!(cloud.post("/d", &[("x-versions-enabled", "true")]).await.status, 400);
}

#[tokio::test]
async fn a_stack_of_versions_in_another_container() {
    for cloud in clouds().await {
        cloud.make("/old", &[], "").await;
        cloud.make("/c", &[("x-versions-location", "old")], "").await;
        for text in ["one", "two", "three"] {
            cloud.make("/c/o", &[], text).await;
        }
        let kept = cloud.names("/old").await;
        assert!(kept.starts_with("001o/") && kept.split(' ').count() == 2, "{kept}");
        for text in ["two", "one"] {
            assert_eq!(cloud.delete("/c/o").await.status, 204);
            assert_eq!(cloud.get("/c/o").await.text(), text);
        }
        assert_eq!(cloud.delete("/c/o").await.status, 204);
        assert_eq!(cloud.get("/c/o").await.status, 404);
        assert_eq!((cloud.names("/old").await, cloud.files().len()), (String::new(), 0));
        assert_eq!(cloud.head("").await.header("x-account-bytes-used"), "0");
        cloud.make("/c", &[("x-versions-location", "none")], "").await;
        cloud.make("/c/o", &[], "one").await;
        assert_eq!(cloud.put("/c/o", &[], "two").await.status, 412, "there is no place for the one before");
        assert_eq!(cloud.get("/c/o").await.text(), "one");
        assert_eq!(cloud.files().len(), 1);
    }
}

#[tokio::test]
async fn a_history_of_versions_in_another_container() {
    let cloud = Cloud::small().await;
    cloud.make("/old", &[], "").await;
    cloud.make("/c", &[("x-history-location", "old")], "").await;
    cloud.make("/c/o", &[], "one").await;
    assert_eq!(cloud.delete("/c/o").await.status, 204);
    assert_eq!(cloud.get("/c/o").await.status, 404);
    let kept = cloud.get("/old?format=json").await;
    assert_eq!(kept.body.as_array().unwrap().len(), 2);
    assert_eq!(kept.body[1]["content_type"], "application/x-deleted;swift_versions_deleted=1");
    // In stack mode, a DELETE takes the deletion back.
    assert_eq!(cloud.post("/c", &[("x-versions-location", "old")]).await.status, 204);
    assert_eq!(cloud.delete("/c/o").await.status, 204);
    assert_eq!(cloud.get("/c/o").await.text(), "one");
    assert_eq!(cloud.names("/old").await, "");
}
