//! Stories of volumes: made, many at once, interrupted.

use futures::future::join_all;
use serde_json::{Value, json};
use test_cloud::{Caller, TestCloud, until};

const SERVICE: &str = "cinder";

async fn create(caller: &Caller, name: &str) -> String {
    let body = json!({"volume": {"name": name, "size": 1}});
    let made = caller.make(SERVICE, "/volumes", body).await;
    made["volume"]["id"].as_str().unwrap().to_string()
}

async fn volumes(caller: &Caller) -> Vec<Value> {
    let shown = caller.show(SERVICE, "/volumes/detail").await;
    shown["volumes"].as_array().unwrap().clone()
}

async fn is(caller: &Caller, id: &str, status: &str) {
    let path = format!("/volumes/{id}");
    until(&format!("{id} {status}"), async || {
        let shown = caller.show(SERVICE, &path).await;
        (shown["volume"]["status"] == status).then_some(())
    })
    .await;
}

async fn used(caller: &Caller) -> Value {
    let shown = caller.show(SERVICE, "/limits").await;
    let limits = &shown["limits"]["absolute"];
    json!([limits["totalVolumesUsed"], limits["totalGigabytesUsed"]])
}

/// All volumes have come to their end; gives their statuses.
async fn settled(caller: &Caller) -> Vec<String> {
    until("the end of every operation", async || {
        let all = volumes(caller).await;
        let statuses: Vec<String> = all.iter().map(|v| v["status"].as_str().unwrap().to_string()).collect();
        let finals = ["available", "error", "error_deleting"];
        statuses.iter().all(|status| finals.contains(&status.as_str())).then_some(statuses)
    })
    .await
}

async fn delete_all(caller: &Caller) {
    for volume in volumes(caller).await {
        let path = format!("/volumes/{}", volume["id"].as_str().unwrap());
        assert_eq!(caller.delete(SERVICE, &path).await.status, 202);
    }
    until("no volume", async || volumes(caller).await.is_empty().then_some(())).await;
    assert_eq!(used(caller).await, json!([0, 0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn made_extended_and_deleted() {
    let cloud = TestCloud::start().await;
    let demo = cloud.demo().await;
    let id = create(&demo, "mine").await;
    is(&demo, &id, "available").await;
    let action = format!("/volumes/{id}/action");
    assert_eq!(demo.post(SERVICE, &action, json!({"os-extend": {"new_size": 3}})).await.status, 202);
    is(&demo, &id, "available").await;
    assert_eq!(used(&demo).await, json!([1, 3]));
    let admin = cloud.admin().await;
    let foreign = admin.get(SERVICE, "/volumes").await.json().unwrap();
    assert_eq!(foreign["volumes"], json!([]), "of another project");
    delete_all(&demo).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_against_a_quota_of_ten_are_exactly_ten() {
    let cloud = TestCloud::start().await;
    let demo = cloud.demo().await;
    let body = json!({"volume": {"name": "many", "size": 1}});
    let answers = join_all((0..100).map(|_| demo.post(SERVICE, "/volumes", body.clone()))).await;
    let made = answers.iter().filter(|answer| answer.status == 202).count();
    assert!(answers.iter().all(|answer| matches!(answer.status, 202 | 413)));
    assert_eq!(made, 10);
    assert_eq!(settled(&demo).await, vec!["available"; 10]);
    delete_all(&demo).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_interrupts_ends_after_it() {
    let mut cloud = TestCloud::start().await;
    for round in 0..5 {
        let demo = cloud.demo().await;
        let ids = join_all((0..10).map(|n| create(&demo, ["even", "odd"][n % 2])).collect::<Vec<_>>()).await;
        let (going, staying) = ids.split_at(5);
        if round % 2 == 1 {
            settled(&demo).await;
        }
        let paths: Vec<String> = going.iter().map(|id| format!("/volumes/{id}")).collect();
        let deleted = join_all(paths.iter().map(|path| demo.delete(SERVICE, path))).await;
        cloud.crash().await;
        cloud.start_again().await;
        settled(&demo).await;
        for (answer, path) in deleted.iter().zip(&paths).filter(|(answer, _)| answer.status == 202) {
            until(&format!("{path} gone after {}", answer.status), async || {
                (demo.get(SERVICE, path).await.status == 404).then_some(())
            })
            .await;
        }
        for id in staying {
            is(&demo, id, "available").await;
        }
        delete_all(&demo).await;
    }
}
