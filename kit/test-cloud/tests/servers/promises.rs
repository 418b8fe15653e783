//! Servers whose ports are promised bandwidth and packets: what they take of the hosts' interfaces, wherever they go.

use crate::stage::{Stage, id};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use test_cloud::until;

const BANDWIDTH: &str = "NET_BW_IGR_KILOBIT_PER_SEC";
const PACKETS: &str = "NET_PACKET_RATE_KILOPACKET_PER_SEC";

/// Hosts with an interface of 10 Mbit/s on a physical network with VLANs.
async fn set() -> Stage {
    let stage = Stage::with(&[
        ("neutron", "network_vlan_ranges", r#"["physnet1:100:199"]"#),
        ("neutron_agent", "physical_networks", r#"{physnet1 = "eth1"}"#),
        ("neutron_agent", "resource_provider_bandwidths", r#"["eth1:10000:10000"]"#),
        ("neutron_agent", "resource_provider_packet_processing_without_direction", "1000"),
    ])
    .await;
    until("the hosts' interfaces in placement", async || {
        let all = stage.admin.at("placement 1.39").show("placement", "/resource_providers").await;
        let names = all["resource_providers"].as_array().unwrap().iter();
        let there = names.filter(|one| one["name"].as_str().unwrap().ends_with(":eth1")).count();
        (there == 4).then_some(())
    })
    .await;
    stage
}

async fn network(stage: &Stage) -> String {
    let wanted = json!({"network": {"name": "vlan", "shared": true, "provider:network_type": "vlan",
        "provider:physical_network": "physnet1"}});
    let network = id(&stage.admin.make("neutron", "/v2.0/networks", wanted).await["network"]);
    let subnet = json!({"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.7.0.0/24"}});
    stage.admin.make("neutron", "/v2.0/subnets", subnet).await;
    network
}

async fn policy(stage: &Stage, bandwidth: i64, packets: i64) -> String {
    let wanted = json!({"policy": {"name": "p", "shared": true}});
    let policy = id(&stage.admin.make("neutron", "/v2.0/qos/policies", wanted).await["policy"]);
    let path = format!("/v2.0/qos/policies/{policy}");
    let rule = json!({"minimum_bandwidth_rule": {"min_kbps": bandwidth, "direction": "ingress"}});
    stage.admin.make("neutron", &format!("{path}/minimum_bandwidth_rules"), rule).await;
    if packets > 0 {
        let rule = json!({"minimum_packet_rate_rule": {"min_kpps": packets, "direction": "any"}});
        stage.admin.make("neutron", &format!("{path}/minimum_packet_rate_rules"), rule).await;
    }
    policy
}

async fn port(stage: &Stage, network: &str, policy: Option<&str>) -> String {
    let wanted = json!({"port": {"network_id": network, "qos_policy_id": policy}});
    id(&stage.demo.make("neutron", "/v2.0/ports", wanted).await["port"])
}

async fn server(stage: &Stage, port: &str) -> String {
    let mut wanted = stage.server("promised");
    wanted["server"]["networks"] = json!([{"port": port}]);
    id(&stage.demo.at("compute 2.72").make("nova", "/servers", wanted).await["server"])
}

/// What a consumer takes, by class, and of whom.
async fn taken(stage: &Stage, consumer: &str) -> BTreeMap<String, (String, i64)> {
    let path = format!("/allocations/{consumer}");
    let shown = stage.admin.at("placement 1.39").show("placement", &path).await;
    let mut found = BTreeMap::new();
    for (provider, resources) in shown["allocations"].as_object().unwrap() {
        for (class, amount) in resources["resources"].as_object().unwrap() {
            found.insert(class.clone(), (provider.clone(), amount.as_i64().unwrap()));
        }
    }
    found
}

/// Whom the port says that it is given by.
async fn given(stage: &Stage, port: &str) -> Vec<String> {
    let shown = stage.admin.show("neutron", &format!("/v2.0/ports/{port}")).await;
    let allocation = shown["port"]["binding:profile"]["allocation"].as_object().cloned().unwrap_or_default();
    let mut all: Vec<String> = allocation.values().map(|one| one.as_str().unwrap().to_string()).collect();
    all.sort();
    all
}

/// The server takes this, of the interface of the host where it is, and its port says so.
async fn check(stage: &Stage, server: &str, port: &str, bandwidth: i64, packets: i64) {
    let all = taken(stage, server).await;
    let (interface, amount) = all[BANDWIDTH].clone();
    let (agent, rate) = all[PACKETS].clone();
    assert_eq!((amount, rate), (bandwidth, packets));
    let mut both = vec![interface.clone(), agent];
    both.sort();
    assert_eq!(given(stage, port).await, both);
    let path = format!("/resource_providers/{interface}");
    let provider = stage.admin.at("placement 1.39").show("placement", &path).await;
    assert_eq!(
        provider["name"].as_str().unwrap(),
        format!("{}:Linux bridge agent:eth1", stage.host_of(server).await)
    );
    assert_eq!(provider["root_provider_uuid"], json!(all["VCPU"].0));
}

async fn act(stage: &Stage, server: &str, action: Value) {
    let answer =
        stage.admin.at("compute 2.72").post("nova", &format!("/servers/{server}/action"), action).await;
    assert!([202, 204].contains(&answer.status), "{}", answer.status);
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_go_with_a_server() {
    let stage = set().await;
    let (network, policy) = (network(&stage).await, policy(&stage, 1000, 100).await);
    let port = port(&stage, &network, Some(&policy)).await;
    let server = server(&stage, &port).await;
    stage.is(&server, "ACTIVE").await;
    check(&stage, &server, &port, 1000, 100).await;

    let source = stage.host_of(&server).await;
    act(&stage, &server, json!({"migrate": null})).await;
    stage.is(&server, "VERIFY_RESIZE").await;
    check(&stage, &server, &port, 1000, 100).await;
    assert_ne!(stage.host_of(&server).await, source);
    act(&stage, &server, json!({"revertResize": null})).await;
    stage.is(&server, "ACTIVE").await;
    check(&stage, &server, &port, 1000, 100).await;
    assert_eq!(stage.host_of(&server).await, source);

    act(&stage, &server, json!({"os-migrateLive": {"host": null, "block_migration": "auto"}})).await;
    until("the server elsewhere", async || (stage.host_of(&server).await != source).then_some(())).await;
    stage.is(&server, "ACTIVE").await;
    check(&stage, &server, &port, 1000, 100).await;

    act(&stage, &server, json!({"shelve": null})).await;
    stage.is(&server, "SHELVED_OFFLOADED").await;
    assert!(taken(&stage, &server).await.is_empty() && given(&stage, &port).await.is_empty());
    act(&stage, &server, json!({"unshelve": null})).await;
    stage.is(&server, "ACTIVE").await;
    check(&stage, &server, &port, 1000, 100).await;

    assert_eq!(stage.demo.delete("nova", &format!("/servers/{server}")).await.status, 204);
    until("the end of the server", async || taken(&stage, &server).await.is_empty().then_some(())).await;
    until("a free port", async || given(&stage, &port).await.is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_brings_its_promise_and_takes_it_away() {
    let stage = set().await;
    let network = network(&stage).await;
    let plain = port(&stage, &network, None).await;
    let server = server(&stage, &plain).await;
    stage.is(&server, "ACTIVE").await;
    let before = taken(&stage, &server).await;
    let (fits, too_much) = (policy(&stage, 1000, 100).await, policy(&stage, 10_001, 0).await);
    let card = port(&stage, &network, Some(&fits)).await;
    let path = format!("/servers/{server}/os-interface");
    let attach = async |port: &str| {
        stage.demo.post("nova", &path, json!({"interfaceAttachment": {"port_id": port}})).await.status
    };
    assert_eq!(attach(&card).await, 200);
    check(&stage, &server, &card, 1000, 100).await;
    let refused = port(&stage, &network, Some(&too_much)).await;
    assert_eq!(attach(&refused).await, 400);
    check(&stage, &server, &card, 1000, 100).await;
    assert!(given(&stage, &refused).await.is_empty());
    assert_eq!(stage.demo.delete("nova", &format!("{path}/{card}")).await.status, 202);
    until("what it was", async || (taken(&stage, &server).await == before).then_some(())).await;
    until("a free port", async || given(&stage, &card).await.is_empty().then_some(())).await;
    // An operator deletes it under the server.
    assert_eq!(attach(&card).await, 200);
    check(&stage, &server, &card, 1000, 100).await;
    assert_eq!(stage.admin.delete("neutron", &format!("/v2.0/ports/{card}")).await.status, 204);
    until("what it was", async || (taken(&stage, &server).await == before).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_host_promises_more_than_it_has() {
    let stage = set().await;
    let network = network(&stage).await;
    let too_much = policy(&stage, 10_001, 0).await;
    let refused = server(&stage, &port(&stage, &network, Some(&too_much)).await).await;
    let shown = stage.is(&refused, "ERROR").await;
    assert!(shown["fault"]["message"].as_str().unwrap().starts_with("No valid host was found."), "{shown}");
    assert!(taken(&stage, &refused).await.is_empty());
    assert_eq!(stage.demo.delete("nova", &format!("/servers/{refused}")).await.status, 204);
    until("the end of the refused", async || stage.servers().await.is_empty().then_some(())).await;
    // Four hosts, each with room for two of these: nine at once are eight.
    let policy = policy(&stage, 5000, 0).await;
    let mut servers = Vec::new();
    for _ in 0..9 {
        servers.push(server(&stage, &port(&stage, &network, Some(&policy)).await).await);
    }
    let ended = stage.settled().await;
    let placed = ended.iter().filter(|status| *status == "ACTIVE").count();
    assert_eq!(placed, 8, "{ended:?}");
    // Nobody asked placement for what a network's policy promises a port that nova makes.
    let answer = stage
        .admin
        .put("neutron", &format!("/v2.0/networks/{network}"), json!({"network": {"qos_policy_id": policy}}))
        .await;
    assert_eq!(answer.status, 200);
    let mut wanted = stage.server("networks");
    wanted["server"]["networks"] = json!([{"uuid": network}]);
    let made = id(&stage.demo.make("nova", "/servers", wanted).await["server"]);
    let shown = stage.is(&made, "ERROR").await;
    let said = shown["fault"]["message"].as_str().unwrap();
    assert!(said.contains("Using networks with QoS policy is not supported"), "{said}");
    // Before 2.72 nova says that it does not do it.
    let mut wanted = stage.server("old");
    wanted["server"]["networks"] = json!([{"port": port(&stage, &network, Some(&policy)).await}]);
    assert_eq!(stage.demo.at("compute 2.71").post("nova", "/servers", wanted).await.status, 400);
}
