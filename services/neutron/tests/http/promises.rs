//! What QoS policies promise ports: what these ask of placement, what hosts have, and what changes in placement's books.

use crate::cloud::{Cloud, HOST, NOWHERE, OWN, id, on_all};
use base::{Context, Json};
use contracts::{
    agents::network::{AgentState, Bandwidth, HostResources, NetworkReports, Rates},
    networks::{Binding, Networks, PortAllocation},
    placement::{Placement, Provider},
};
use futures::future::join_all;
use neutron::Options;
use serde_json::json;
use std::collections::BTreeMap;

const SERVER: &str = "cccccccc-0000-4000-8000-000000000001";
const EGRESS: &str = "NET_BW_EGR_KILOBIT_PER_SEC";
const INGRESS: &str = "NET_BW_IGR_KILOBIT_PER_SEC";
const PACKETS: &str = "NET_PACKET_RATE_KILOPACKET_PER_SEC";

fn options() -> Options {
    let ranges = ["physnet0:100:101", "physnet1"].map(String::from).to_vec();
    Options { network_vlan_ranges: ranges, ..Options::default() }
}

async fn vlan_network(cloud: &Cloud) -> String {
    let wanted = json!({
        "name": "v", "shared": true, "provider:network_type": "vlan", "provider:physical_network": "physnet1",
        "provider:segmentation_id": 7,
    });
    let network = id(&cloud.make("admin", "networks", "network", wanted).await);
    cloud.subnet("admin", &network, "10.9.0.0/24").await;
    network
}

/// A policy with rules: kind, number, direction.
async fn policy(cloud: &Cloud, rules: &[(&str, i64, &str)]) -> String {
    let wanted = json!({"name": "p", "shared": true});
    let policy = id(&cloud.make("admin", "qos/policies", "policy", wanted).await);
    for (kind, number, direction) in rules {
        let name = if *kind == "minimum_bandwidth" { "min_kbps" } else { "min_kpps" };
        let (path, noun) = (format!("qos/policies/{policy}/{kind}_rules"), format!("{kind}_rule"));
        cloud.make("admin", &path, &noun, json!({name: number, "direction": direction})).await;
    }
    policy
}

async fn shown(cloud: &Cloud, port: &str) -> Json {
    cloud.get("admin", &format!("ports/{port}")).await["port"].clone()
}

/// A server's port on the host; each group that it asks for is given by the provider of its name.
async fn bound_port(cloud: &Cloud, network: &str, policy: Option<&str>) -> String {
    let wanted = json!({"network_id": network, "project_id": OWN, "qos_policy_id": policy});
    let port = id(&cloud.make("admin", "ports", "port", wanted).await);
    let groups = shown(cloud, &port).await["resource_request"]["request_groups"].clone();
    let mut allocation = PortAllocation::new();
    for group in groups.as_array().into_iter().flatten() {
        let is_packets = group["resources"].as_object().unwrap().keys().any(|class| class.contains("PACKET"));
        let provider = if is_packets { "agent" } else { "eth1" };
        allocation.insert(group["id"].as_str().unwrap().into(), provider.into());
        for (class, amount) in group["resources"].as_object().unwrap() {
            let mut held = cloud.books.held.lock();
            held.entry(provider.into()).or_default().insert(class.clone(), amount.as_i64().unwrap());
        }
    }
    let binding = Binding {
        port_id: port.clone(),
        device_id: SERVER.into(),
        device_owner: "compute:nova".into(),
        host: HOST.into(),
        dns_name: None,
        allocation,
    };
    cloud.neutron.bind_port(&Context::internal(), &binding).await.unwrap();
    port
}

fn held(cloud: &Cloud) -> String {
    let held = cloud.books.held.lock().clone();
    let of = |(provider, resources): (&String, &BTreeMap<String, i64>)| {
        let all: Vec<String> = resources.iter().map(|(class, amount)| format!("{class}:{amount}")).collect();
        (!all.is_empty()).then(|| format!("{provider} {}", all.join(",")))
    };
    held.iter().filter_map(of).collect::<Vec<_>>().join("; ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_asks_for_what_its_policy_promises() {
    on_all(options(), async |cloud| {
        let network = vlan_network(cloud).await;
        let bandwidth =
            policy(cloud, &[("minimum_bandwidth", 10, "ingress"), ("minimum_bandwidth", 20, "egress")]).await;
        let wanted =
            json!({"network_id": network, "qos_policy_id": bandwidth, "binding:vnic_type": "direct"});
        let port = cloud.make("admin", "ports", "port", wanted).await;
        let request = &port["resource_request"];
        let group = &request["request_groups"][0];
        assert_eq!(group["resources"], json!({EGRESS: 20, INGRESS: 10}));
        assert_eq!(group["required"], json!(["CUSTOM_PHYSNET_PHYSNET1", "CUSTOM_VNIC_TYPE_DIRECT"]));
        assert_eq!(request["same_subtree"], json!([group["id"]]));
        // Nova is told the same, and a member nothing.
        let told = cloud.neutron.port(&Context::internal().elevated(), &id(&port)).await.unwrap();
        assert_eq!(told.resource_request[0].id, group["id"].as_str().unwrap());
        let wanted = json!({"network_id": network, "qos_policy_id": bandwidth});
        let own = cloud.make("member", "ports", "port", wanted).await;
        assert!(own.get("resource_request").is_none(), "{own}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vlans_are_those_of_the_options() {
    on_all(options(), async |cloud| {
        let ask = async |network: Option<&str>, vlan: Option<Json>| {
            let mut wanted = json!({"provider:network_type": "vlan"});
            if let Some(network) = network {
                wanted["provider:physical_network"] = json!(network);
            }
            if let Some(vlan) = vlan {
                wanted["provider:segmentation_id"] = vlan;
            }
            cloud.call("admin", "POST", "networks", json!({"network": wanted})).await
        };
        for (network, vlan, error) in [
            (Some("elsewhere"), Some(json!(5)), "InvalidInput"),
            (Some("physnet1"), Some(json!(0)), "InvalidInput"),
            (Some("physnet1"), Some(json!(4095)), "InvalidInput"),
            (Some("physnet1"), Some(json!("x")), "InvalidInput"),
            (None, Some(json!(5)), "InvalidInput"),
            (Some("physnet1"), None, "NoNetworkAvailable"),
        ] {
            let answer = ask(network, vlan.clone()).await;
            assert_eq!(answer.error(), error, "{network:?} {vlan:?}: {}", answer.body);
        }
        let answers = join_all((0..4).map(|_| ask(None, None))).await;
        let mut given: Vec<String> = answers
            .iter()
            .filter(|answer| answer.status == 201)
            .map(|answer| answer.body["network"]["provider:segmentation_id"].to_string())
            .collect();
        given.sort();
        assert_eq!(given, ["100", "101"], "two at once get two, and there are no more");
        assert_eq!(ask(Some("physnet0"), Some(json!(100))).await.error(), "VlanIdInUse");
        assert_eq!(ask(Some("physnet1"), Some(json!(100))).await.status, 201);
        let refused = json!({"network": {"provider:network_type": "vlan"}});
        assert_eq!(cloud.call("member", "POST", "networks", refused).await.status, 403);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_policy_of_a_servers_port_is_counted() {
    on_all(options(), async |cloud| {
        *cloud.books.most.lock() = 5000;
        let network = vlan_network(cloud).await;
        let first =
            policy(cloud, &[("minimum_bandwidth", 1000, "ingress"), ("minimum_packet_rate", 100, "any")])
                .await;
        let second =
            policy(cloud, &[("minimum_bandwidth", 2000, "egress"), ("minimum_packet_rate", 50, "any")]).await;
        let too_much = policy(cloud, &[("minimum_bandwidth", 6000, "ingress")]).await;
        let directed = policy(cloud, &[("minimum_packet_rate", 5, "egress")]).await;
        let only_packets = policy(cloud, &[("minimum_packet_rate", 70, "any")]).await;
        let port = bound_port(cloud, &network, Some(&first)).await;
        let path = format!("ports/{port}");
        let set = async |policy: Json| {
            cloud.call("member", "PUT", &path, json!({"port": {"qos_policy_id": policy}})).await
        };
        assert_eq!(held(cloud), format!("agent {PACKETS}:100; eth1 {INGRESS}:1000"));
        assert_eq!(set(json!(second)).await.status, 200);
        assert_eq!(held(cloud), format!("agent {PACKETS}:50; eth1 {EGRESS}:2000"));
        let (now, given) = (shown(cloud, &port).await, "binding:profile");
        let asked = &now["resource_request"]["request_groups"];
        assert_eq!(now[given]["allocation"][asked[0]["id"].as_str().unwrap()], "eth1", "{now}");

        // What does not fit stays as it was, and so does what cannot be counted.
        let refused = set(json!(too_much)).await;
        assert_eq!((refused.status, refused.error()), (409, "QosPlacementAllocationUpdateConflict"));
        let refused = set(json!(directed)).await;
        assert_eq!(refused.status, 501, "{}", refused.body);
        assert_eq!(shown(cloud, &port).await["qos_policy_id"], json!(second));
        assert_eq!(set(json!(NOWHERE)).await.status, 404);
        assert_eq!(held(cloud), format!("agent {PACKETS}:50; eth1 {EGRESS}:2000"));

        // Bandwidth is no longer promised, and will not be again: nobody looks for it.
        assert_eq!(set(json!(only_packets)).await.status, 200);
        assert_eq!(held(cloud), format!("agent {PACKETS}:70"));
        assert_eq!(set(json!(first)).await.status, 200);
        assert_eq!(held(cloud), format!("agent {PACKETS}:100"));
        assert_eq!(set(Json::Null).await.status, 200);
        assert_eq!(held(cloud), "");
        // What a port did not ask for when its server was placed it is not given.
        assert_eq!(set(json!(first)).await.status, 200);
        assert_eq!(held(cloud), "");
    })
    .await;
}

/// Each change is counted once, whichever comes last.
#[tokio::test(flavor = "multi_thread")]
async fn policies_that_come_at_once() {
    on_all(options(), async |cloud| {
        *cloud.books.most.lock() = 5000;
        let network = vlan_network(cloud).await;
        let mut policies = Vec::new();
        for amount in [10, 20, 30, 40] {
            policies.push(policy(cloud, &[("minimum_bandwidth", amount, "egress")]).await);
        }
        let port = bound_port(cloud, &network, Some(&policies[0])).await;
        let path = format!("ports/{port}");
        let set = async |policy: &String| {
            cloud.call("member", "PUT", &path, json!({"port": {"qos_policy_id": policy}})).await.status
        };
        let all = join_all(policies.iter().chain(&policies).map(set)).await;
        assert!(all.iter().all(|status| *status == 200), "{all:?}");
        let now = shown(cloud, &port).await;
        let promised = now["resource_request"]["request_groups"][0]["resources"][EGRESS].clone();
        assert_eq!(held(cloud), format!("eth1 {EGRESS}:{promised}"));
    })
    .await;
}

/// Who asked goes away while placement counts: the change is made nevertheless, and the next one finds it so.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_hangs_up() {
    on_all(options(), async |cloud| {
        *cloud.books.most.lock() = 5000;
        let network = vlan_network(cloud).await;
        let first = policy(cloud, &[("minimum_bandwidth", 10, "egress")]).await;
        let second = policy(cloud, &[("minimum_bandwidth", 20, "egress")]).await;
        let third = policy(cloud, &[("minimum_bandwidth", 30, "egress")]).await;
        let port = bound_port(cloud, &network, Some(&first)).await;
        let path = format!("ports/{port}");
        let set = async |policy: &str| {
            cloud.call("member", "PUT", &path, json!({"port": {"qos_policy_id": policy}})).await
        };
        let held_up = cloud.books.door.write().await;
        tokio::select! {
            _ = set(&second) => panic!("placement has not answered"),
            () = async { while held(cloud) != format!("eth1 {EGRESS}:20") { tokio::task::yield_now().await } } => {}
        }
        assert_eq!(shown(cloud, &port).await["qos_policy_id"], json!(first));
        drop(held_up);
        assert_eq!(set(&third).await.status, 200);
        assert_eq!(held(cloud), format!("eth1 {EGRESS}:30"));
        assert_eq!(shown(cloud, &port).await["qos_policy_id"], json!(third));

        // The port goes from its server meanwhile: what was counted is given back, and the caller is told.
        let held_up = cloud.books.door.write().await;
        let gone = async {
            while held(cloud) != format!("eth1 {EGRESS}:10") {
                tokio::task::yield_now().await;
            }
            cloud.neutron.unbind_port(&Context::internal(), &port).await.unwrap();
            drop(held_up);
        };
        let (refused, ()) = tokio::join!(set(&first), gone);
        assert_eq!((refused.status, refused.error()), (409, "RevisionNumberConstraintFailed"));
        assert_eq!(held(cloud), format!("eth1 {EGRESS}:30"));
        assert_eq!(shown(cloud, &port).await["qos_policy_id"], json!(third));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_of_a_network_is_that_of_its_servers_ports() {
    on_all(options(), async |cloud| {
        *cloud.books.most.lock() = 5000;
        let network = vlan_network(cloud).await;
        let first = policy(cloud, &[("minimum_bandwidth", 100, "egress")]).await;
        let second = policy(cloud, &[("minimum_bandwidth", 300, "egress")]).await;
        let too_much = policy(cloud, &[("minimum_bandwidth", 9000, "egress")]).await;
        let path = format!("networks/{network}");
        let set = async |policy: &str| {
            cloud.call("admin", "PUT", &path, json!({"network": {"qos_policy_id": policy}})).await
        };
        assert_eq!(set(&first).await.status, 200);
        bound_port(cloud, &network, None).await;
        assert_eq!(held(cloud), format!("eth1 {EGRESS}:100"));
        assert_eq!(set(&second).await.status, 200);
        assert_eq!(held(cloud), format!("eth1 {EGRESS}:300"));
        assert_eq!(set(&too_much).await.error(), "QosPlacementAllocationUpdateConflict");
        assert_eq!(cloud.get("admin", &path).await["network"]["qos_policy_id"], json!(second));
        assert_eq!(held(cloud), format!("eth1 {EGRESS}:300"));
        // Its rules stay as they are while a server has a port with them.
        let rules = format!("qos/policies/{second}/minimum_bandwidth_rules");
        let more = json!({"minimum_bandwidth_rule": {"min_kbps": 1, "direction": "ingress"}});
        assert_eq!(cloud.call("admin", "POST", &rules, more).await.status, 501);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_that_are_refused() {
    on_all(options(), async |cloud| {
        let of = policy(cloud, &[]).await;
        let path = format!("qos/policies/{of}/minimum_bandwidth_rules");
        let ask = async |token: &str, rule: Json| {
            cloud.call(token, "POST", &path, json!({"minimum_bandwidth_rule": rule})).await.status
        };
        for (token, rule, status) in [
            ("admin", json!({}), 400),
            ("admin", json!({"min_kbps": "x"}), 400),
            ("admin", json!({"min_kbps": -1}), 400),
            ("admin", json!({"min_kbps": 2_147_483_648_i64}), 400),
            ("admin", json!({"min_kbps": 1, "direction": "any"}), 400),
            ("admin", json!({"min_kbps": 1, "more": 1}), 400),
            ("member", json!({"min_kbps": 1}), 403),
            ("reader", json!({"min_kbps": 1}), 403),
        ] {
            assert_eq!(ask(token, rule.clone()).await, status, "{token} {rule}");
        }
        let mut answers = join_all((0..5).map(|_| ask("admin", json!({"min_kbps": 1})))).await;
        answers.sort_unstable();
        assert_eq!(answers, [201, 409, 409, 409, 409]);
        let path = format!("qos/policies/{NOWHERE}/minimum_bandwidth_rules");
        let rule = json!({"minimum_bandwidth_rule": {"min_kbps": 1}});
        assert_eq!(cloud.call("admin", "POST", &path, rule).await.error(), "QosPolicyNotFound");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn placement_is_told_what_hosts_have() {
    on_all(options(), async |cloud| {
        let rates = Rates { egress: Some(10), ingress: Some(20), any: None };
        let network = Some("physnet1".to_string());
        let resources = HostResources {
            hypervisor: "h".into(),
            bandwidths: [("eth1".to_string(), Bandwidth { physical_network: network, rates })].into(),
            ..HostResources::default()
        };
        let state = AgentState { host: HOST.into(), started: true, resources, ..AgentState::default() };
        let cx = Context::internal();
        cloud.neutron.agent_reported(&cx, &state).await.unwrap();
        let synced = async || {
            let agents = cloud.get("admin", &format!("agents?host={HOST}&topic=N%2FA")).await;
            agents["agents"][0]["resources_synced"].clone()
        };
        // Nova's provider of the host is not there yet.
        assert_eq!(synced().await, json!(false));
        let root = Provider { id: NOWHERE.into(), name: "h".into(), ..Provider::default() };
        cloud.books.provide(&cx, &root).await.unwrap();
        for _ in 0..500 {
            if synced().await == json!(true) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(synced().await, json!(true));
        let told = cloud.books.providers.lock().clone();
        let names: Vec<&str> = told.iter().map(|provider| provider.name.as_str()).collect();
        assert_eq!(names, ["h", "h:Linux bridge agent", "h:Linux bridge agent:eth1"]);
        assert_eq!(told[2].parent_id.as_ref(), Some(&told[1].id));
        // One that promises nothing is not told of.
        let state = AgentState { host: "two".into(), started: true, ..AgentState::default() };
        cloud.neutron.agent_reported(&cx, &state).await.unwrap();
        let agents = cloud.get("admin", "agents?host=two&topic=N%2FA").await;
        assert_eq!(agents["agents"][0]["resources_synced"], Json::Null);
    })
    .await;
}
