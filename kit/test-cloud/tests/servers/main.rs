//! Stories of servers: booted, given volumes and cards, placed, looked into, refused, interrupted; nothing of them may
//! be left.

mod devices;
mod drain;
mod guests;
mod ha;
mod moves;
mod placing;
mod promises;
mod refusals;
mod stage;

use futures::future::join_all;
use serde_json::json;
use stage::Stage;
use test_cloud::until;

#[tokio::test(flavor = "multi_thread")]
async fn booted_given_a_volume_and_deleted() {
    let stage = Stage::set().await;
    let before = stage.taken().await;
    let server = stage.create("mine").await;
    let shown = stage.is(&server, "ACTIVE").await;
    assert_eq!(shown["addresses"]["mine"].as_array().unwrap().len(), 1, "{}", shown["addresses"]);
    let volume = stage.volume(json!({"name": "data", "size": 1})).await;
    let path = format!("/volumes/{volume}");
    let attachments = format!("/servers/{server}/os-volume_attachments");
    let body = json!({"volumeAttachment": {"volumeId": volume}});
    stage.demo.make("nova", &attachments, body).await;
    stage.volume_is(&volume, "in-use").await;
    let refused = stage.demo.delete("cinder", &path).await;
    assert_eq!(refused.status, 400, "a volume in use is not deleted");
    assert_eq!(stage.demo.delete("nova", &format!("{attachments}/{volume}")).await.status, 202);
    stage.volume_is(&volume, "available").await;
    for (action, wanted) in [("os-stop", "SHUTOFF"), ("os-start", "ACTIVE")] {
        let answer =
            stage.demo.post("nova", &format!("/servers/{server}/action"), json!({action: null})).await;
        assert_eq!(answer.status, 202, "{action}");
        stage.is(&server, wanted).await;
    }
    assert_ne!(stage.taken().await, before);
    stage.delete_all().await;
    assert_eq!(stage.demo.delete("cinder", &path).await.status, 202);
    stage.comes_to(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_against_a_quota_of_ten_are_exactly_ten() {
    let stage = Stage::set().await;
    let before = stage.taken().await;
    let answers = join_all((0..100).map(|_| stage.demo.post("nova", "/servers", stage.server("many")))).await;
    let made = answers.iter().filter(|answer| answer.status == 202).count();
    let refused = answers.iter().filter(|answer| answer.status == 403).count();
    assert_eq!((made, refused), (10, 90));
    assert_eq!(stage.settled().await, vec!["ACTIVE"; 10]);
    stage.delete_all().await;
    stage.comes_to(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_interrupts_ends_after_it() {
    let mut stage = Stage::set().await;
    let before = stage.taken().await;
    for round in 0..6 {
        let names: Vec<String> = (0..8).map(|number| format!("round-{round}-{number}")).collect();
        let ids = join_all(names.iter().map(|name| stage.create(name))).await;
        // Some rounds crash among boots alone, some among deletes of what runs, some among both.
        if round % 3 == 1 {
            stage.settled().await;
        }
        let going = if round % 3 == 0 { &ids[..0] } else { &ids[..4] };
        let paths: Vec<String> = going.iter().map(|id| format!("/servers/{id}")).collect();
        for answer in join_all(paths.iter().map(|path| stage.demo.delete("nova", path))).await {
            assert_eq!(answer.status, 204);
        }
        stage.cloud.crash().await;
        stage.cloud.start_again().await;
        let statuses = stage.settled().await;
        for path in &paths {
            until(&format!("{path} gone"), async || {
                (stage.demo.get("nova", path).await.status == 404).then_some(())
            })
            .await;
        }
        assert!(statuses.len() >= ids.len() - going.len(), "{statuses:?}");
        assert!(!statuses.iter().any(|status| status.starts_with("ERROR")), "{statuses:#?}");
        stage.delete_all().await;
        stage.comes_to(&before).await;
    }
}
