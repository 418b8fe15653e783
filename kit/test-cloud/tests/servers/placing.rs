//! Where servers go: groups, hints, hosts out of service; and what is said when there is no place.

use crate::stage::{Stage, id};
use futures::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const HOSTS: usize = 4;

async fn group(stage: &Stage, wanted: Value) -> Value {
    let body = json!({"server_group": wanted});
    let made = stage.demo.at("compute 2.64").make("nova", "/os-server-groups", body).await;
    json!({"os:scheduler_hints": {"group": id(&made["server_group"])}})
}

async fn hosts(stage: &Stage, servers: &[String]) -> BTreeSet<String> {
    join_all(servers.iter().map(|server| stage.host_of(server))).await.into_iter().collect()
}

/// What the owner is told, on the server and in its list of actions.
async fn fault(stage: &Stage, server: &str) -> String {
    let shown = stage.is(server, "ERROR").await;
    let message = shown["fault"]["message"].as_str().unwrap().to_string();
    assert!(shown["fault"].get("details").is_none(), "the details are the administrator's");
    let path = format!("/servers/{server}/os-instance-actions");
    let action = stage.demo.show("nova", &path).await["instanceActions"][0].clone();
    assert_eq!((&action["action"], &action["message"]), (&json!("create"), &json!("Error")));
    let path = format!("{path}/{}", action["request_id"].as_str().unwrap());
    let events = stage.admin.at("compute 2.84").show("nova", &path).await["instanceAction"]["events"].clone();
    let told = events[0]["details"].as_str().unwrap_or_else(|| panic!("{events}"));
    assert!(told.starts_with(message.trim_end_matches('…')), "{told} of {message}");
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_stays_together() {
    let stage = Stage::set().await;
    let hint = group(&stage, json!({"name": "near", "policy": "affinity"})).await;
    let servers = join_all((0..4).map(|_| stage.running("near", hint.clone()))).await;
    assert_eq!(hosts(&stage, &servers).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_keeps_apart_even_when_all_come_at_once() {
    let stage = Stage::set().await;
    let hint = group(&stage, json!({"name": "far", "policy": "anti-affinity"})).await;
    let servers = join_all((0..HOSTS).map(|_| stage.running("far", hint.clone()))).await;
    assert_eq!(hosts(&stage, &servers).await.len(), HOSTS);
    let before = stage.taken().await;
    let fifth = stage.create_with("far", hint.clone()).await;
    let said = fault(&stage, &fifth).await;
    assert_eq!(
        said,
        "No valid host was found. simulated-1, simulated-2, simulated-3, simulated-4: \
         ServerGroupAntiAffinityFilter: 1 of the server group are on it."
    );
    assert_eq!(stage.demo.delete("nova", &format!("/servers/{fifth}")).await.status, 204);
    stage.comes_to(&before).await;
    // A place becomes free and is taken.
    assert_eq!(stage.demo.delete("nova", &format!("/servers/{}", servers[0])).await.status, 204);
    test_cloud::until("the place", async || {
        let shown = stage.demo.get("nova", &format!("/servers/{}", servers[0])).await;
        (shown.status == 404).then_some(())
    })
    .await;
    stage.running("far", hint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_a_group_at_most_on_a_host() {
    let stage = Stage::with(&[("simulate", "hosts", "2")]).await;
    let rules = json!({"max_server_per_host": 2});
    let hint = group(&stage, json!({"name": "pairs", "policy": "anti-affinity", "rules": rules})).await;
    let servers = join_all((0..4).map(|_| stage.running("pair", hint.clone()))).await;
    assert_eq!(hosts(&stage, &servers).await.len(), 2);
    let fifth = stage.create_with("pair", hint).await;
    assert!(fault(&stage, &fifth).await.contains("2 of the server group are on it"));
}

#[tokio::test(flavor = "multi_thread")]
async fn soft_policies_are_wishes() {
    let stage = Stage::with(&[("simulate", "hosts", "2")]).await;
    let far = group(&stage, json!({"name": "far", "policy": "soft-anti-affinity"})).await;
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(stage.running("far", far.clone()).await);
    }
    assert_eq!(hosts(&stage, &servers).await.len(), 2, "apart as long as it goes, then together");
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_name_other_servers() {
    let stage = Stage::set().await;
    let first = stage.running("first", json!({})).await;
    let home = stage.host_of(&first).await;
    let hint = |name: &str, value: Value| json!({"os:scheduler_hints": {name: value}});
    let beside = stage.running("beside", hint("same_host", json!([first]))).await;
    assert_eq!(stage.host_of(&beside).await, home);
    let away = stage.running("away", hint("different_host", json!(first))).await;
    assert_ne!(stage.host_of(&away).await, home);
    let both = json!({"os:scheduler_hints": {"same_host": first, "different_host": beside}});
    let nowhere = stage.create_with("nowhere", both).await;
    let said = fault(&stage, &nowhere).await;
    assert!(said.contains(&format!("{home}: DifferentHostFilter: server {beside} is on it")), "{said}");
    assert!(said.contains("SameHostFilter: none of the servers of the hint same_host is on it"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_says_what_it_lacks() {
    let stage = Stage::with(&[("simulate", "hosts", "2"), ("simulate", "vcpus", "8")]).await;
    let services = stage.admin.at("compute 2.53").show("nova", "/os-services?binary=nova-compute").await;
    let one =
        services["services"].as_array().unwrap().iter().find(|one| one["host"] == "simulated-1").unwrap();
    let path = format!("/os-services/{}", one["id"].as_str().unwrap());
    let body = json!({"status": "disabled", "disabled_reason": "new memory"});
    assert_eq!(stage.admin.at("compute 2.53").put("nova", &path, body).await.status, 200);
    let large = json!({"flavor": {"name": "large", "ram": 64, "vcpus": 9, "disk": 1}});
    let large = id(&stage.admin.make("nova", "/flavors", large).await["flavor"]);
    let server = stage.create_with("large", json!({"flavorRef": large})).await;
    assert_eq!(
        fault(&stage, &server).await,
        "No valid host was found. simulated-1: ComputeFilter: its service is disabled (new memory); \
         simulated-2: CoreFilter: 9 processors wanted, 8 there."
    );
    let fits = stage.running("fits", json!({})).await;
    assert_eq!(stage.host_of(&fits).await, "simulated-2");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_administrator_chooses_a_host() {
    let stage = Stage::set().await;
    let body = |zone: &str| {
        json!({"server": {"name": "there", "flavorRef": stage.flavor, "imageRef": stage.image,
            "availability_zone": zone, "networks": "none"}})
    };
    let admin = stage.admin.at("compute 2.96");
    let made = admin.make("nova", "/servers", body("nova:simulated-3")).await;
    let server = id(&made["server"]);
    test_cloud::until("ACTIVE", async || {
        let shown = admin.show("nova", &format!("/servers/{server}")).await;
        (shown["server"]["status"] == "ACTIVE").then_some(())
    })
    .await;
    assert_eq!(stage.host_of(&server).await, "simulated-3");
    let nowhere = admin.post("nova", "/servers", body("nova:simulated-9")).await;
    assert_eq!(nowhere.status, 400);
    let refused = stage.demo.at("compute 2.96").post("nova", "/servers", body("nova:simulated-3")).await;
    assert_eq!(refused.status, 403);
    let zone = stage.demo.at("compute 2.96").post("nova", "/servers", body("moon")).await;
    assert_eq!(zone.status, 400);
    let said = zone.json().unwrap()["badRequest"]["message"].clone();
    assert_eq!(said, "The requested availability zone is not available");
}

/// Those who come together are placed together; one that wants what nobody knows spoils it for none.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_one_is_not_the_others_matter() {
    let stage = Stage::set().await;
    let flavor = json!({"flavor": {"name": "odd", "ram": 128, "vcpus": 1, "disk": 1}});
    let odd = id(&stage.admin.make("nova", "/flavors", flavor).await["flavor"]);
    let specs = json!({"extra_specs": {"trait:CUSTOM_NOBODY_KNOWS": "required"}});
    stage.admin.make("nova", &format!("/flavors/{odd}/os-extra_specs"), specs).await;
    let servers = join_all((0..9).map(|number| {
        let flavor = if number == 4 { &odd } else { &stage.flavor };
        stage.create_with("crowd", json!({"flavorRef": flavor}))
    }))
    .await;
    for (number, server) in servers.iter().enumerate() {
        stage.is(server, if number == 4 { "ERROR" } else { "ACTIVE" }).await;
    }
}
