//! Types of volumes.

use crate::cloud::{Cloud, NOBODY};
use serde_json::json;

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
