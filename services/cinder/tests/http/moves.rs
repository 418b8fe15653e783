//! Volumes that go to another back end, by migration or by retype; and what is refused.

use crate::cloud::{Cloud, NOBODY};
use base::{Context, Error, Json};
use contracts::{agents::volume::VolumeReports, fakes::volume::FakeVolumeAgent};
use serde_json::json;

/// A second back end, of which cinder knows.
async fn other(cloud: &Cloud) -> (FakeVolumeAgent, bus::Serving) {
    let other = FakeVolumeAgent::new("h1@other");
    let serving = other.serve(&cloud.bus).await.unwrap();
    cloud.cinder.back_end_reported(&Context::internal(), &other.back_end()).await.unwrap();
    (other, serving)
}

async fn shown(cloud: &Cloud, id: &str) -> Json {
    cloud.call("admin", "GET", &format!("/v3/volumes/{id}"), None).await.body["volume"].clone()
}

async fn act(cloud: &Cloud, id: &str, body: Json) -> crate::cloud::Answer {
    let answer = cloud.call("admin", "POST", &format!("/v3/volumes/{id}/action"), Some(body)).await;
    cloud.cinder.settled().await;
    answer
}

fn migrate(host: &str) -> Json {
    json!({"os-migrate_volume": {"host": host}})
}

#[tokio::test(flavor = "multi_thread")]
async fn there_and_back() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(json!({"size": 1})).await;
    let (other, _serving) = other(&cloud).await;
    assert_eq!(act(&cloud, &id, migrate("h1@other#other")).await.status, 202);
    let volume = shown(&cloud, &id).await;
    assert_eq!(
        (&volume["os-vol-host-attr:host"], &volume["status"]),
        (&json!("h1@other#other"), &json!("available"))
    );
    assert_eq!(volume["migration_status"], "success");
    assert!(cloud.fake.volumes().is_empty() && cloud.fake.exports().is_empty());
    assert_eq!(other.volumes()[&id], 1 << 30);
    assert_eq!(act(&cloud, &id, migrate("h1@files")).await.status, 202);
    assert_eq!(shown(&cloud, &id).await["os-vol-host-attr:host"], "h1@files#files");
    assert!(other.volumes().is_empty());

    other.refuse(Error::conflict("the disk is full"));
    other.refuse(Error::conflict("the disk is full"));
    act(&cloud, &id, migrate("h1@other")).await;
    let volume = shown(&cloud, &id).await;
    assert_eq!(
        (&volume["os-vol-host-attr:host"], &volume["status"]),
        (&json!("h1@files#files"), &json!("available"))
    );
    assert_eq!(volume["migration_status"], "error");
    assert!(other.volumes().is_empty() && cloud.fake.exports().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_of_another_back_end_takes_its_volumes_there() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(json!({"size": 1})).await;
    let (other, _serving) = other(&cloud).await;
    let kind = json!({"volume_type": {"name": "there", "extra_specs": {"volume_backend_name": "other"}}});
    assert_eq!(cloud.call("admin", "POST", "/v3/types", Some(kind)).await.status, 200);
    let retype = |policy: &str| json!({"os-retype": {"new_type": "there", "migration_policy": policy}});
    let never = act(&cloud, &id, retype("never")).await;
    assert_eq!(never.status, 400, "{}", never.body);
    assert_eq!(act(&cloud, &id, retype("on-demand")).await.status, 202);
    let volume = shown(&cloud, &id).await;
    assert_eq!((&volume["volume_type"], &volume["status"]), (&json!("there"), &json!("available")));
    assert_eq!(volume["os-vol-host-attr:host"], "h1@other#other");
    assert_eq!((cloud.fake.volumes().len(), other.volumes().len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(json!({"size": 1})).await;
    let kept = cloud.volume(json!({"size": 1})).await;
    cloud.post("/v3/snapshots", json!({"snapshot": {"volume_id": kept}})).await;
    cloud.cinder.settled().await;
    let held = cloud.volume(json!({"size": 1})).await;
    cloud.attached(&held).await;
    let (other, _serving) = other(&cloud).await;
    for (volume, body, status) in [
        (id.as_str(), json!({"os-migrate_volume": {}}), 400),
        (&id, json!({"os-migrate_volume": {"host": "h9@other"}}), 400),
        (&id, json!({"os-migrate_volume": {"host": "h1@other", "cluster": "c"}}), 400),
        (&id, json!({"os-migrate_volume": {"host": 1}}), 400),
        (&id, json!({"os-migrate_volume": {"host": "h1@other", "lock_volume": "maybe"}}), 400),
        (&id, migrate("h1@files"), 400),
        (&kept, migrate("h1@other"), 400),
        (&held, migrate("h1@other"), 400),
        (NOBODY, migrate("h1@other"), 404),
        (&id, json!({"os-extend_volume_completion": {}}), 400),
    ] {
        let refused = act(&cloud, volume, body.clone()).await;
        assert_eq!(refused.status, status, "{body}: {}", refused.body);
    }
    let path = format!("/v3/volumes/{id}/action");
    assert_eq!(cloud.post(&path, migrate("h1@other")).await.status, 403);
    assert!(other.volumes().is_empty());
    // Twice at once: one of them goes.
    let both = futures::future::join_all((0..2).map(|_| act(&cloud, &id, migrate("h1@other")))).await;
    let mut statuses: Vec<u16> = both.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 400]);

    // There are no clusters, and that is said.
    let clusters = cloud.call("admin", "GET", "/v3/clusters/detail", None).await;
    assert_eq!(clusters.body, json!({"clusters": []}));
    assert_eq!(cloud.call("admin", "GET", "/v3/clusters?colour=red", None).await.status, 400);
    assert_eq!(cloud.call("admin", "GET", "/v3/clusters/c", None).await.status, 404);
    assert_eq!(cloud.call("member", "GET", "/v3/clusters", None).await.status, 403);
    let named = Some(json!({"name": "c"}));
    assert_eq!(cloud.call("admin", "PUT", "/v3/clusters/enable", named).await.status, 404);
}
