//! What a project may have.

use crate::cloud::{Cloud, PROJECT, fake, options};
use cinder::{Options, TABLES};
use futures::future::join_all;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_against_a_quota_of_ten_give_ten() {
    for database in db::testing::all(TABLES, &[]).await.unwrap() {
        let quota = Options { quota_volumes: 10, ..options() };
        let cloud = Cloud::with(quota, fake(), database).await;
        let body = json!({"volume": {"size": 1}});
        let asked = join_all((0..100).map(|_| cloud.post("/v3/volumes", body.clone()))).await;
        let taken = asked.iter().filter(|answer| answer.status == 202).count();
        let refused = asked.iter().filter(|answer| answer.status == 413).count();
        assert_eq!((taken, refused), (10, 90));
        let over = asked.iter().find(|answer| answer.status == 413).unwrap();
        assert_eq!(over.headers["retry-after"], "0");
        assert!(over.message().starts_with("VolumeLimitExceeded: "), "{}", over.body);
        cloud.cinder.settled().await;
        let count = cloud.get("/v3/volumes?with_count=true&limit=3").await;
        assert_eq!((&count["count"], count["volumes"].as_array().unwrap().len()), (&json!(10), 3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gigabytes_count_volumes_snapshots_and_extensions_under_way() {
    let quota = Options { quota_gigabytes: 5, per_volume_size_limit: 4, ..options() };
    let cloud = Cloud::with(quota, fake(), db::testing::sqlite(TABLES, &[]).await.unwrap()).await;
    let id = cloud.volume(json!({"size": 2})).await;
    let action = format!("/v3/volumes/{id}/action");
    let extend = |size: i64| cloud.post(&action, json!({"os-extend": {"new_size": size}}));
    let answer = extend(5).await;
    assert_eq!(
        (answer.status, answer.message()),
        (413, "VolumeSizeExceedsLimit: Requested volume size 5G is larger than maximum allowed limit 4G.")
    );
    // Two at once: the second finds the volume busy.
    let (one, two) = tokio::join!(extend(4), extend(4));
    let mut statuses = [one.status, two.status];
    statuses.sort();
    assert_eq!(statuses, [202, 400]);
    cloud.cinder.settled().await;
    let snapshot = cloud.post("/v3/snapshots", json!({"snapshot": {"volume_id": id}})).await;
    assert_eq!(snapshot.status, 413, "4 of 5 are used, the snapshot takes 4: {}", snapshot.body);
    assert!(snapshot.message().contains("Requested 4G, quota is 5G and 4G has been consumed."));
    let used = cloud.get(&format!("/v3/os-quota-sets/{PROJECT}?usage=true")).await["quota_set"].clone();
    assert_eq!(used["gigabytes"], json!({"in_use": 4, "limit": 5, "reserved": 0}));
    assert_eq!(used["gigabytes___DEFAULT__"]["in_use"], 4);
}
