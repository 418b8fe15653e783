//! Network agents: what the API shows of them, what their reports change, and what nova hears of it.

use crate::cloud::{HOST, id, on_all};
use base::{Context, Json};
use contracts::agents::network::{NetworkReports, Remote};
use neutron::Options;
use serde_json::json;
use std::time::Duration;

const SERVER: &str = "0e8a7f6c-0000-4000-8000-00000000000a";

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_lives_is_disabled_and_forgotten() {
    on_all(Options::default(), async |cloud| {
        let network = cloud.network("member").await;
        cloud.subnet("member", &network, "10.0.0.0/24").await;
        let router = id(&cloud.make("member", "routers", "router", json!({})).await);
        cloud.agent_reports(HOST).await;
        let count =
            async |path: String, noun: &str| cloud.get("admin", &path).await[noun].as_array().unwrap().len();
        assert_eq!(count("agents".into(), "agents").await, 3);
        let agent = async |kind: &str| {
            cloud.get("admin", &format!("agents?agent_type={kind}%20agent")).await["agents"][0].clone()
        };
        let dhcp = format!("agents/{}", id(&agent("DHCP").await));
        let l3 = agent("L3").await;
        let path = format!("agents/{}", id(&l3));
        assert_eq!((&l3["host"], &l3["alive"]), (&json!(HOST), &json!(true)));
        assert_eq!(cloud.get("member", "agents").await["agents"], json!([]));
        assert_eq!(cloud.call("member", "GET", &path, Json::Null).await.status, 404);
        assert_eq!(count(format!("networks/{network}/dhcp-agents"), "agents").await, 1);
        assert_eq!(count(format!("routers/{router}/l3-agents"), "agents").await, 1);
        assert_eq!(count(format!("{dhcp}/dhcp-networks"), "networks").await, 1);
        assert_eq!(count(format!("{path}/l3-routers"), "routers").await, 1);
        // Disabled, it serves nobody; the host's other agents go on.
        let off = json!({"agent": {"admin_state_up": false, "description": "resting"}});
        let answer = cloud.call("admin", "PUT", &path, off).await;
        assert_eq!(answer.body["agent"]["admin_state_up"], false);
        assert_eq!(count(format!("routers/{router}/l3-agents"), "agents").await, 0);
        assert_eq!(count(format!("{path}/l3-routers"), "routers").await, 0);
        assert_eq!(count(format!("{dhcp}/dhcp-networks"), "networks").await, 1);
        // Silent, it is down.
        cloud.clock.advance(Duration::from_secs(100));
        assert_eq!(cloud.get("admin", &path).await["agent"]["alive"], false);
        assert_eq!(count("agents?alive=true".into(), "agents").await, 0);
        assert_eq!(count("agents?alive=false".into(), "agents").await, 3);
        // Its next report leaves what an operator set.
        cloud.agent_reports(HOST).await;
        let shown = cloud.get("admin", &path).await["agent"].clone();
        assert_eq!((&shown["alive"], &shown["description"]), (&json!(true), &json!("resting")));
        assert_eq!(cloud.call("admin", "DELETE", &path, Json::Null).await.status, 204);
        assert_eq!(cloud.call("admin", "DELETE", &path, Json::Null).await.status, 404);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nova_hears_what_happens_to_a_servers_port() {
    on_all(Options::default(), async |cloud| {
        cloud.agent_reports(HOST).await;
        let network = cloud.network("member").await;
        let subnet = cloud.subnet("member", &network, "10.0.0.0/24").await;
        let bare = id(&cloud.make("member", "ports", "port", json!({"network_id": network})).await);
        let port = cloud.servers_port(&network, SERVER).await;
        assert_eq!((&port["status"], &port["binding:vif_type"]), (&json!("DOWN"), &json!("bridge")));
        let port = id(&port);
        // A port that no server has is nobody's news.
        cloud.ports_report(&[&bare], &[]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(cloud.nova_heard_nothing());
        cloud.ports_report(&[&port], &[]).await;
        cloud.nova_hears("network-vif-plugged", SERVER, &port).await;
        let shown = cloud.get("member", &format!("ports/{port}")).await["port"].clone();
        assert_eq!(shown["status"], "ACTIVE");
        // The same report again is no news.
        cloud.ports_report(&[&port], &[]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(cloud.nova_heard_nothing());
        cloud.ports_report(&[], &[&port]).await;
        cloud.nova_hears("network-vif-unplugged", SERVER, &port).await;

        let outside = cloud.external().await;
        let router = json!({"external_gateway_info": {"network_id": outside}});
        let router = id(&cloud.make("member", "routers", "router", router).await);
        let path = format!("routers/{router}/add_router_interface");
        assert_eq!(cloud.call("member", "PUT", &path, json!({"subnet_id": subnet})).await.status, 200);
        let floating =
            cloud.make("member", "floatingips", "floatingip", json!({"floating_network_id": outside})).await;
        let path = format!("floatingips/{}", id(&floating));
        let associate = async |port: Json| {
            let answer = cloud.call("member", "PUT", &path, json!({"floatingip": {"port_id": port}})).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            cloud.nova_hears("network-changed", SERVER, &id(&shown)).await;
        };
        associate(json!(port)).await;
        associate(Json::Null).await;
        associate(json!(port)).await;
        assert_eq!(cloud.call("member", "DELETE", &path, Json::Null).await.status, 204);
        cloud.nova_hears("network-changed", SERVER, &port).await;

        // A server's port is not for its owner to delete.
        let path = format!("ports/{port}");
        assert_eq!(cloud.call("member", "DELETE", &path, Json::Null).await.status, 403);
        assert_eq!(cloud.call("admin", "DELETE", &path, Json::Null).await.status, 204);
        cloud.nova_hears("network-vif-deleted", SERVER, &port).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_floating_address_is_as_its_gateway() {
    on_all(Options::default(), async |cloud| {
        cloud.agent_reports(HOST).await;
        let network = cloud.network("member").await;
        let subnet = cloud.subnet("member", &network, "10.0.0.0/24").await;
        let port = id(&cloud.servers_port(&network, SERVER).await);
        let outside = cloud.external().await;
        let router = json!({"external_gateway_info": {"network_id": outside}});
        let router = id(&cloud.make("member", "routers", "router", router).await);
        let path = format!("routers/{router}/add_router_interface");
        assert_eq!(cloud.call("member", "PUT", &path, json!({"subnet_id": subnet})).await.status, 200);
        let floating = json!({"floating_network_id": outside, "port_id": port});
        let floating = id(&cloud.make("member", "floatingips", "floatingip", floating).await);
        let status = async || {
            let shown = cloud.get("member", &format!("floatingips/{floating}")).await;
            shown["floatingip"]["status"].as_str().unwrap().to_string()
        };
        let path = format!("ports?device_id={router}&device_owner=network:router_gateway");
        let gateway = id(&cloud.get("admin", &path).await["ports"][0]);
        cloud.ports_report(&[&gateway], &[]).await;
        assert_eq!(status().await, "ACTIVE");
        cloud.ports_report(&[], &[&gateway]).await;
        assert_eq!(status().await, "DOWN");
        cloud.ports_report(&[&gateway], &[]).await;
        assert_eq!(status().await, "ACTIVE");
        // An operator takes the router from its host.
        let agent = id(&cloud.get("admin", "agents?agent_type=L3%20agent").await["agents"][0]);
        let path = format!("agents/{agent}/l3-routers/{router}");
        assert_eq!(cloud.call("admin", "DELETE", &path, Json::Null).await.status, 204);
        assert_eq!(status().await, "DOWN");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_get_the_addresses_of_an_address_group_as_they_are_now() {
    on_all(Options::default(), async |cloud| {
        cloud.agent_reports(HOST).await;
        let network = cloud.network("member").await;
        cloud.subnet("member", &network, "10.0.0.0/24").await;
        let addresses = json!({"name": "a", "addresses": ["10.1.0.0/24", "fd00::/64"]});
        let addresses = id(&cloud.make("member", "address-groups", "address_group", addresses).await);
        let group = id(&cloud.make("member", "security-groups", "security_group", json!({"name": "g"})).await);
        let rule = json!({
            "security_group_id": group, "direction": "ingress", "protocol": "tcp",
            "remote_address_group_id": addresses,
        });
        cloud.make("member", "security-group-rules", "security_group_rule", rule).await;
        let port = json!({
            "network_id": network, "device_owner": "compute:nova", "device_id": SERVER, "binding:host_id": HOST,
            "security_groups": [group],
        });
        cloud.make("admin", "ports", "port", port).await;
        let on_host = async || {
            let state = cloud.neutron.host_state(&Context::internal(), HOST).await.unwrap();
            let rules = state.desired.security_groups[&group].rules.iter().filter(|rule| rule.protocol == Some(6));
            let remote = |remote: &Remote| match remote {
                Remote::Cidr(net) => net.to_string(),
                other => panic!("{other:?}"),
            };
            rules.map(|rule| remote(&rule.remote)).collect::<Vec<_>>()
        };
        assert_eq!(on_host().await, ["10.1.0.0/24"]);
        let more = json!({"addresses": ["10.2.0.0/24"]});
        let path = format!("address-groups/{addresses}/add_addresses");
        assert_eq!(cloud.call("member", "PUT", &path, more).await.status, 200);
        assert_eq!(on_host().await, ["10.1.0.0/24", "10.2.0.0/24"]);
        let all = json!({"addresses": ["10.1.0.0/24", "10.2.0.0/24"]});
        let path = format!("address-groups/{addresses}/remove_addresses");
        assert_eq!(cloud.call("member", "PUT", &path, all).await.status, 200);
        assert!(on_host().await.is_empty(), "nobody is let in");
    })
    .await;
}
