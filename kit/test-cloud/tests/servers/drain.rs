//! Hosts that are emptied: what runs goes on elsewhere, what is off, too; nothing new comes; and back again.

use crate::stage::{Stage, id};
use base::Context;
use contracts::hosts::Left;
use serde_json::{Value, json};
use test_cloud::until;

impl Stage {
    async fn close(&self, host: &str) {
        for user in &self.cloud.cloud().host_users {
            user.close(&Context::internal(), host).await.unwrap();
        }
    }

    async fn open(&self, host: &str) {
        for user in &self.cloud.cloud().host_users {
            user.open(&Context::internal(), host).await.unwrap();
        }
    }

    async fn left(&self, host: &str) -> Vec<Left> {
        let mut left = Vec::new();
        for user in &self.cloud.cloud().host_users {
            left.extend(user.left(&Context::internal(), host).await.unwrap());
        }
        left
    }

    async fn emptied(&self, host: &str) {
        until(&format!("{host} empty"), async || {
            for user in &self.cloud.cloud().host_users {
                // As two control nodes at once.
                let cx = Context::internal();
                let (one, other) = tokio::join!(user.empty(&cx, host), user.empty(&cx, host));
                one.and(other).unwrap();
            }
            self.left(host).await.is_empty().then_some(())
        })
        .await;
    }

    async fn service(&self, host: &str) -> Value {
        let shown = self.admin.at("compute 2.96").show("nova", &format!("/os-services?host={host}")).await;
        shown["services"][0].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_go_elsewhere() {
    let stage = Stage::with(&[("simulate", "hosts", "2"), ("nova", "drain_moves_max", "2")]).await;
    let before = stage.taken().await;
    let mut servers = Vec::new();
    for number in 0..6 {
        servers.push(stage.running(&format!("s{number}"), json!({})).await);
    }
    stage.action(&servers[0], json!({"os-stop": null})).await;
    stage.is(&servers[0], "SHUTOFF").await;
    stage.action(&servers[1], json!({"pause": null})).await;
    stage.is(&servers[1], "PAUSED").await;
    let host = stage.host_of(&servers[0]).await;
    let other = stage.host_of(&servers[1]).await;
    assert_ne!(host, other, "both hosts have some");
    let there = stage.left(&host).await.iter().filter(|left| left.kind == "server").count();
    assert!((1..6).contains(&there), "{there}");

    stage.close(&host).await;
    assert_eq!(stage.service(&host).await["disabled_reason"], "The host is drained.");
    servers.push(stage.running("new", json!({})).await);
    assert_eq!(stage.host_of(&servers[6]).await, other);
    stage.emptied(&host).await;
    stage.is(&servers[0], "SHUTOFF").await;
    stage.is(&servers[1], "PAUSED").await;
    for server in &servers {
        assert_eq!(stage.host_of(server).await, other);
    }
    let mut body = stage.server("forced");
    body["server"]["availability_zone"] = format!("nova:{host}").into();
    let refused = id(&stage.admin.make("nova", "/servers", body).await["server"]);
    until("a refusal", async || {
        let shown = stage.admin.show("nova", &format!("/servers/{refused}")).await["server"].clone();
        (shown["status"] == "ERROR").then_some(())
    })
    .await;
    stage.admin.delete("nova", &format!("/servers/{refused}")).await;

    // Said again, undone, undone again: it does no harm.
    stage.close(&host).await;
    stage.open(&host).await;
    stage.open(&host).await;
    assert_eq!(stage.service(&host).await["status"], "enabled");
    let agents = stage.admin.show("neutron", &format!("/v2.0/agents?host={host}")).await;
    assert!(agents["agents"].as_array().unwrap().iter().all(|agent| agent["admin_state_up"] == true));
    let back = stage.running("back", json!({})).await;
    assert_eq!(stage.host_of(&back).await, host, "it has the most room");

    stage.delete_all().await;
    until("nothing left over", async || (stage.taken().await == before).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_go_says_why() {
    let stage = Stage::with(&[("simulate", "hosts", "1")]).await;
    let server = stage.running("alone", json!({})).await;
    let volume = stage.volume(json!({"name": "data", "size": 1})).await;
    let body = json!({"volumeAttachment": {"volumeId": volume}});
    stage.demo.make("nova", &format!("/servers/{server}/os-volume_attachments"), body).await;
    stage.volume_is(&volume, "in-use").await;
    let host = stage.host_of(&server).await;
    // An administrator's own word stays.
    let service = stage.service(&host).await["id"].as_str().unwrap().to_string();
    let body = json!({"status": "disabled", "disabled_reason": "mine"});
    let admin = stage.admin.at("compute 2.96");
    assert_eq!(admin.call("PUT", "nova", &format!("/os-services/{service}"), Some(body)).await.status, 200);
    stage.close(&host).await;
    let told = until("why", async || {
        for user in &stage.cloud.cloud().host_users {
            user.empty(&Context::internal(), &host).await.unwrap();
        }
        let left = stage.left(&host).await;
        let waits = |left: &&Left| left.kind == "server" && left.state.starts_with("is tried again");
        left.iter().find(waits).map(|left| left.state.clone())
    })
    .await;
    assert!(told.contains("No valid host"), "{told}");
    stage.is(&server, "ACTIVE").await;
    // The only one that serves a network goes on with it.
    let left = stage.left(&host).await;
    let dhcp = left.iter().find(|left| left.kind == "DHCP of network").unwrap();
    assert!(dhcp.stuck && dhcp.state.contains("no other host"));
    stage.open(&host).await;
    assert_eq!(stage.service(&host).await["disabled_reason"], "mine");
    let machine = left.iter().find(|left| left.kind == "volume");
    assert!(machine.is_none_or(|volume| volume.stuck && volume.state == "a server uses it"), "{machine:?}");
    assert!(stage.left("nobody").await.is_empty());
}
