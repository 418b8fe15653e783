//! Several hosts: ports that move between them, and who serves what when one is silent.

use crate::cloud::{Cloud, OWN, Told, id, on_all};
use base::{Context, Json};
use bus::Topic;

use contracts::{
    agents::network::{
        AGENT_TOPIC, AgentState, Desired, Limit, NetworkKind, NetworkReports, PortsState, Qos, Segment,
        network_agent_handlers,
    },
    networks::{Networks, PortAllocation},
};
use neutron::Options;
use serde_json::json;
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

const SERVER: &str = "0e8a7f6c-0000-4000-8000-00000000000a";
const HOSTS: [(&str, &str, &str); 3] =
    [("one", "10.9.0.1", "east"), ("two", "10.9.0.2", "west"), ("three", "10.9.0.3", "")];

async fn reports(cloud: &Cloud, host: &str) {
    let (_, ip, zone) = HOSTS.into_iter().find(|(name, _, _)| *name == host).unwrap();
    let state = AgentState {
        host: host.into(),
        tunnel_ip: Some(ip.parse().unwrap()),
        only_guests: host == "three",
        availability_zone: zone.into(),
        ..AgentState::default()
    };
    cloud.neutron.agent_reported(&Context::internal(), &state).await.unwrap();
}

async fn desired(cloud: &Cloud, host: &str) -> Desired {
    cloud.neutron.host_state(&Context::internal(), host).await.unwrap().desired
}

/// Hosts that a host floods to, and those behind which it knows a port.
async fn segment(cloud: &Cloud, host: &str, network: &str) -> Segment {
    match desired(cloud, host).await.networks.remove(network).expect("the host has the network").kind {
        NetworkKind::Vxlan(segment) => segment,
        other => panic!("{other:?}"),
    }
}

fn ips(segment: &Segment) -> (Vec<String>, Vec<String>) {
    let ports: BTreeSet<String> = segment.ports.iter().map(|port| port.host.to_string()).collect();
    (segment.remotes.iter().map(ToString::to_string).collect(), ports.into_iter().collect())
}

async fn up(cloud: &Cloud, host: &str, up: &[&str], down: &[&str]) {
    let set = |ids: &[&str]| ids.iter().map(|id| id.to_string()).collect::<BTreeSet<_>>();
    let state = PortsState { host: host.into(), up: set(up), down: set(down), ..PortsState::default() };
    cloud.neutron.ports_reported(&Context::internal(), &state).await.unwrap();
}

async fn port_on(cloud: &Cloud, network: &str, server: &str, host: &str) -> String {
    let port = json!({
        "network_id": network, "device_id": server, "device_owner": "compute:nova", "binding:host_id": host,
        "project_id": OWN,
    });
    id(&cloud.make("admin", "ports", "port", port).await)
}

async fn status(cloud: &Cloud, port: &str) -> (String, String) {
    let shown = cloud.get("admin", &format!("ports/{port}")).await["port"].clone();
    let text = |name: &str| shown[name].as_str().unwrap().to_string();
    (text("binding:host_id"), text("status"))
}

/// As nova does it: a binding where the server goes, active when it is there, and the old one away.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_moves_with_its_server() {
    on_all(Options::default(), async |cloud| {
        for (host, ..) in HOSTS {
            reports(cloud, host).await;
        }
        let network = cloud.network("member").await;
        let port = port_on(cloud, &network, SERVER, "one").await;
        port_on(cloud, &network, "other", "three").await;
        up(cloud, "one", &[&port], &[]).await;
        assert_eq!(
            ips(&segment(cloud, "three", &network).await),
            (vec!["10.9.0.1".into()], vec!["10.9.0.1".into()])
        );
        cloud.nova_hears("network-vif-plugged", SERVER, &port).await;
        assert!(!desired(cloud, "two").await.ports.contains_key(&port));

        let cx = Context::internal();
        for _ in 0..2 {
            let moving =
                cloud.neutron.create_binding(&cx, &port, "two", &PortAllocation::new()).await.unwrap();
            assert_eq!((moving.host.as_str(), moving.inactive_bindings[0].host.as_str()), ("one", "two"));
            assert!(!moving.inactive_bindings[0].plugged);
        }
        let there = desired(cloud, "two").await;
        assert!(there.ports.contains_key(&port) && there.networks.contains_key(&network));
        let groups = &there.ports[&port].security_groups;
        assert!(groups.iter().all(|group| there.security_groups.contains_key(group)) && !groups.is_empty());
        // Wherever it is at the moment, frames for it arrive: nobody knows it, so they go to both.
        let both = vec!["10.9.0.1".to_string(), "10.9.0.2".to_string()];
        assert_eq!(ips(&segment(cloud, "three", &network).await), (both, vec![]));
        up(cloud, "two", &[&port], &[]).await;
        cloud.nova_hears("network-vif-plugged", SERVER, &port).await;
        assert_eq!(status(cloud, &port).await, ("one".into(), "ACTIVE".into()));

        for _ in 0..2 {
            let moved = cloud.neutron.activate_binding(&cx, &port, "two").await.unwrap();
            assert_eq!((moved.host.as_str(), moved.inactive_bindings[0].host.as_str()), ("two", "one"));
        }
        cloud.neutron.delete_binding(&cx, &port, "one").await.unwrap();
        cloud.neutron.delete_binding(&cx, &port, "one").await.unwrap();
        // The host that it left says so late.
        up(cloud, "one", &[], &[&port]).await;
        assert_eq!(status(cloud, &port).await, ("two".into(), "ACTIVE".into()));
        assert!(!desired(cloud, "one").await.ports.contains_key(&port));
        assert_eq!(
            ips(&segment(cloud, "three", &network).await),
            (vec!["10.9.0.2".into()], vec!["10.9.0.2".into()])
        );

        assert!(cloud.neutron.create_binding(&cx, &port, "nowhere", &PortAllocation::new()).await.is_err());
        assert!(cloud.neutron.activate_binding(&cx, &port, "nowhere").await.is_err());
        assert_eq!(cloud.call("admin", "DELETE", &format!("ports/{port}"), Json::Null).await.status, 204);
        assert!(!desired(cloud, "two").await.ports.contains_key(&port));
    })
    .await;
}

/// Which of both network hosts serves the network's DHCP and the router.
async fn serves(cloud: &Cloud, network: &str, router: &str) -> (Vec<String>, Vec<String>) {
    let hosts = async |path: String| -> Vec<String> {
        let agents = cloud.get("admin", &path).await["agents"].clone();
        agents.as_array().unwrap().iter().map(|agent| agent["host"].as_str().unwrap().into()).collect()
    };
    let dhcp = hosts(format!("networks/{network}/dhcp-agents")).await;
    (dhcp, hosts(format!("routers/{router}/l3-agents")).await)
}

async fn stands(cloud: &Cloud, network: &str, router: &str) -> (Vec<&'static str>, Vec<&'static str>) {
    let (mut dhcp, mut routers) = (Vec::new(), Vec::new());
    for (host, ..) in HOSTS {
        let all = desired(cloud, host).await;
        if all.networks.get(network).is_some_and(|network| network.dhcp.is_some()) {
            dhcp.push(host);
        }
        if all.routers.contains_key(router) {
            routers.push(host);
        }
    }
    (dhcp, routers)
}

#[tokio::test(flavor = "multi_thread")]
async fn others_take_over_what_a_silent_host_served() {
    let options = Options { agent_down_time_seconds: 10, ..Options::default() };
    on_all(options, async |cloud| {
        for (host, ..) in HOSTS {
            reports(cloud, host).await;
        }
        let network = cloud.network("member").await;
        cloud.subnet("member", &network, "10.0.0.0/24").await;
        let router = id(&cloud.make("member", "routers", "router", json!({})).await);
        let (dhcp, l3) = serves(cloud, &network, &router).await;
        assert_eq!((dhcp.len(), l3.len()), (1, 1));
        assert!(!dhcp.contains(&"three".into()) && !l3.contains(&"three".into()), "it runs guests alone");
        // The one that serves falls silent.
        let (dead, alive) = if l3[0] == "one" { ("one", "two") } else { ("two", "one") };
        cloud.clock.advance(Duration::from_secs(11));
        reports(cloud, alive).await;
        assert_eq!(stands(cloud, &network, &router).await, (vec![alive], vec![alive]));
        assert_eq!(serves(cloud, &network, &router).await, (vec![alive.into()], vec![alive.into()]));
        let zones =
            cloud.get("admin", "availability_zones?resource=router").await["availability_zones"].clone();
        let state = |zone: &str| {
            zones.as_array().unwrap().iter().find(|z| z["name"] == zone).unwrap()["state"].clone()
        };
        let zone = |host: &str| HOSTS.iter().find(|(name, ..)| *name == host).unwrap().2;
        assert_eq!((state(zone(dead)), state(zone(alive))), (json!("unavailable"), json!("available")));
        reports(cloud, dead).await;
        assert_eq!(serves(cloud, &network, &router).await, (dhcp, l3));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_says_who_serves() {
    on_all(Options::default(), async |cloud| {
        for (host, ..) in HOSTS {
            reports(cloud, host).await;
        }
        let network = cloud.network("member").await;
        cloud.subnet("member", &network, "10.0.0.0/24").await;
        let router = id(&cloud.make("member", "routers", "router", json!({})).await);
        let agent = async |kind: &str, host: &str| {
            let path = format!("agents?agent_type={kind}%20agent&host={host}");
            id(&cloud.get("admin", &path).await["agents"][0])
        };
        let (_, l3) = serves(cloud, &network, &router).await;
        let (from, to) = if l3[0] == "one" { ("one", "two") } else { ("two", "one") };
        let (from_l3, to_l3) = (agent("L3", from).await, agent("L3", to).await);
        let wanted = json!({"router_id": router});
        let add = async |agent: &str| {
            let answer =
                cloud.call("admin", "POST", &format!("agents/{agent}/l3-routers"), wanted.clone()).await;
            (answer.status, answer.error().to_string())
        };
        assert_eq!(add(&to_l3).await, (409, "RouterHostedByL3Agent".into()));
        assert_eq!(add(&from_l3).await.0, 201, "it is there already");
        let path = format!("agents/{from_l3}/l3-routers/{router}");
        assert_eq!(cloud.call("admin", "DELETE", &path, Json::Null).await.status, 204);
        assert!(stands(cloud, &network, &router).await.1.is_empty());
        assert_eq!(add(&to_l3).await.0, 201);
        assert_eq!(stands(cloud, &network, &router).await.1, [to]);

        for host in ["one", "two"] {
            let path = format!("agents/{}/dhcp-networks", agent("DHCP", host).await);
            let wanted = json!({"network_id": network});
            let answer = cloud.call("admin", "POST", &path, wanted.clone()).await;
            assert!(answer.status == 201 || answer.error() == "NetworkHostedByDHCPAgent", "{}", answer.body);
            assert_eq!(stands(cloud, &network, &router).await.0, [host]);
            let answer = cloud.call("admin", "POST", &path, wanted).await;
            assert_eq!(answer.error(), "NetworkHostedByDHCPAgent");
        }
        let path = format!("agents/{}/dhcp-networks/{network}", agent("DHCP", "two").await);
        assert_eq!(cloud.call("admin", "DELETE", &path, Json::Null).await.status, 204);
        assert_eq!(
            cloud.call("admin", "DELETE", &path, Json::Null).await.error(),
            "NetworkNotHostedByDhcpAgent"
        );
        assert!(stands(cloud, &network, &router).await.0.is_empty());
        let ports =
            cloud.get("admin", &format!("ports?network_id={network}&device_owner=network:dhcp")).await;
        assert_eq!(ports["ports"][0]["status"], "DOWN");
        // Where it was put a network is, with no subnet yet to serve.
        let bare = cloud.network("member").await;
        let path = format!("agents/{}/dhcp-networks", agent("DHCP", "two").await);
        let wanted = json!({"network_id": bare});
        assert_eq!(cloud.call("admin", "POST", &path, wanted.clone()).await.status, 201);
        assert_eq!(cloud.call("admin", "POST", &path, wanted).await.error(), "NetworkHostedByDHCPAgent");
        let there = cloud.get("admin", &path).await["networks"].clone();
        assert_eq!(there.as_array().unwrap().iter().map(id).collect::<Vec<_>>(), std::slice::from_ref(&bare));
        let one = format!("{path}/{bare}");
        assert_eq!(cloud.call("admin", "DELETE", &one, Json::Null).await.status, 204);
        let answer = cloud.call("admin", "DELETE", &one, Json::Null).await;
        assert_eq!(answer.error(), "NetworkNotHostedByDhcpAgent");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn things_stay_in_their_zones() {
    on_all(Options::default(), async |cloud| {
        for (host, ..) in HOSTS {
            reports(cloud, host).await;
        }
        for (zone, host) in [("east", "one"), ("west", "two")] {
            let wanted = json!({"availability_zone_hints": [zone]});
            let network = id(&cloud.make("member", "networks", "network", wanted.clone()).await);
            cloud.subnet("member", &network, "10.0.0.0/24").await;
            let router = id(&cloud.make("member", "routers", "router", wanted).await);
            assert_eq!(stands(cloud, &network, &router).await, (vec![host], vec![host]));
            let shown = cloud.get("member", &format!("networks/{network}")).await["network"].clone();
            assert_eq!(shown["availability_zones"], json!([zone]));
            let shown = cloud.get("member", &format!("routers/{router}")).await["router"].clone();
            assert_eq!(
                (&shown["availability_zones"], &shown["availability_zone_hints"]),
                (&json!([zone]), &json!([zone]))
            );
        }
        let nowhere = json!({"network": {"availability_zone_hints": ["north"]}});
        assert_eq!(
            cloud.call("member", "POST", "networks", nowhere).await.error(),
            "AvailabilityZoneNotFound"
        );
    })
    .await;
}

/// It was cut off for a moment, or its broker: what it missed it asks for.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_missed_something_is_told_so() {
    on_all(Options::default(), async |cloud| {
        reports(cloud, "one").await;
        let network = cloud.network("member").await;
        port_on(cloud, &network, SERVER, "one").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let told = Arc::new(Told::default());
        let topic = Topic::on(AGENT_TOPIC, "one");
        let _serving = cloud.bus.serve(topic, network_agent_handlers(told.clone())).await.unwrap();
        while told.1.load(SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Who has heard it is left alone.
        let asked = told.1.load(SeqCst);
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(told.1.load(SeqCst), asked);
    })
    .await;
}

/// Of two words about the same thing the later one has the higher number, whoever asked for it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_later_has_a_higher_number() {
    on_all(Options::default(), async |cloud| {
        reports(cloud, "one").await;
        let told = Arc::new(Told::default());
        let topic = Topic::on(AGENT_TOPIC, "one");
        let _serving = cloud.bus.serve(topic, network_agent_handlers(told.clone())).await.unwrap();
        let state = async || cloud.neutron.host_state(&Context::internal(), "one").await.unwrap();
        let before = state().await.revision;
        let network = cloud.network("member").await;
        let port = port_on(cloud, &network, SERVER, "one").await;
        let heard = || {
            let changes = told.0.lock().unwrap();
            changes.iter().find(|change| change.ports.contains_key(&port)).map(|change| change.revision)
        };
        while heard().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(before < heard().unwrap() && heard().unwrap() < state().await.revision);
    })
    .await;
}

/// Nobody asks: the host that takes over is told.
#[tokio::test(flavor = "multi_thread")]
async fn who_takes_over_is_told() {
    let options = Options { agent_down_time_seconds: 10, ..Options::default() };
    on_all(options, async |cloud| {
        let (one, two) = (Arc::new(Told::default()), Arc::new(Told::default()));
        let mut serving = Vec::new();
        for (host, told) in [("one", &one), ("two", &two)] {
            let topic = Topic::on(AGENT_TOPIC, host);
            serving.push(cloud.bus.serve(topic, network_agent_handlers(told.clone())).await.unwrap());
            reports(cloud, host).await;
        }
        let router = id(&cloud.make("member", "routers", "router", json!({})).await);
        let has = |told: &Told| {
            let changes = told.0.lock().unwrap();
            changes
                .iter()
                .filter_map(|change| change.routers.get(&router))
                .next_back()
                .is_some_and(Option::is_some)
        };
        while !has(&one) && !has(&two) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (alive, told) = if has(&one) { ("two", &two) } else { ("one", &one) };
        // Until neutron has seen both alive once, nobody is missed.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        cloud.clock.advance(Duration::from_secs(6));
        reports(cloud, alive).await;
        cloud.clock.advance(Duration::from_secs(5));
        while !has(told) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Hosts of a large cloud come and go: of those with guests alone the others hear nothing but where their tunnels end,
/// and each asks for what it has itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_guests_alone_concerns_its_neighbours() {
    on_all(Options::default(), async |cloud| {
        reports(cloud, "one").await;
        let (near, far) = (cloud.network("member").await, cloud.network("member").await);
        port_on(cloud, &near, "there", "three").await;
        for network in [&near, &far] {
            port_on(cloud, network, SERVER, "one").await;
        }
        let router = id(&cloud.make("member", "routers", "router", json!({})).await);
        let told = Arc::new(Told::default());
        let topic = Topic::on(AGENT_TOPIC, "one");
        let _serving = cloud.bus.serve(topic, network_agent_handlers(told.clone())).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        told.0.lock().unwrap().clear();

        reports(cloud, "three").await;
        let heard = |network: &str| {
            let changes = told.0.lock().unwrap();
            let last = changes.iter().filter_map(|change| change.networks.get(network).cloned()).next_back();
            (changes.iter().any(|change| change.routers.contains_key(&router)), last)
        };
        while heard(&near).1.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let NetworkKind::Vxlan(segment) = heard(&near).1.unwrap().unwrap().kind else { panic!("no tunnels") };
        assert_eq!(ips(&segment).0, ["10.9.0.3"]);
        reports(cloud, "three").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(heard(&far), (false, None));
        assert_eq!(told.0.lock().unwrap().len(), 1);

        let here = desired(cloud, "three").await;
        assert_eq!(here.networks.keys().collect::<Vec<_>>(), [&near]);
        assert!(here.routers.is_empty() && here.ports.len() == 1 && here.security_groups.len() == 1);
        let there = desired(cloud, "one").await;
        assert_eq!((there.networks.len(), there.routers.len(), there.ports.len()), (2, 1, 2));
    })
    .await;
}

/// A port's own policy goes before its network's; what changes in a policy reaches the host.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_hear_of_limits_marks_and_stateless_groups() {
    on_all(Options::default(), async |cloud| {
        reports(cloud, "one").await;
        let policy = async |name: &str| {
            let wanted = json!({"name": name, "project_id": OWN});
            let policy = id(&cloud.make("admin", "qos/policies", "policy", wanted).await);
            let path = format!("qos/policies/{policy}/bandwidth_limit_rules");
            let limit = json!({"max_kbps": 1000, "max_burst_kbps": 100});
            (policy, id(&cloud.make("admin", &path, "bandwidth_limit_rule", limit).await))
        };
        let ((own, rule), (networks, _)) = (policy("own").await, policy("networks").await);
        let mark = json!({"dscp_mark": 26});
        cloud
            .make("admin", &format!("qos/policies/{networks}/dscp_marking_rules"), "dscp_marking_rule", mark)
            .await;
        let network = cloud.network("member").await;
        cloud.subnet("member", &network, "10.0.0.0/24").await;
        let port = port_on(cloud, &network, SERVER, "one").await;
        let qos = async || desired(cloud, "one").await.ports[&port].qos;
        assert_eq!(qos().await, Qos::default());
        let set = async |path: String, noun: &str, policy: Json| {
            let answer = cloud.call("member", "PUT", &path, json!({noun: {"qos_policy_id": policy}})).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        };
        set(format!("networks/{network}"), "network", json!(networks)).await;
        let inherited = qos().await;
        assert_eq!(
            (inherited.dscp, inherited.bandwidth.egress),
            (Some(26), Some(Limit { rate: 1000, burst: 100 }))
        );
        set(format!("ports/{port}"), "port", json!(own)).await;
        assert_eq!(qos().await.dscp, None);
        let path = format!("qos/policies/{own}/bandwidth_limit_rules/{rule}");
        let other = json!({"bandwidth_limit_rule": {"max_kbps": 2000, "direction": "ingress"}});
        assert_eq!(cloud.call("admin", "PUT", &path, other).await.status, 200);
        let now = qos().await.bandwidth;
        assert_eq!((now.egress, now.ingress), (None, Some(Limit { rate: 2000, burst: 100 })));
        assert_eq!(cloud.call("admin", "DELETE", &path, Json::Null).await.status, 204);
        assert_eq!(qos().await, Qos::default());

        let group = json!({"name": "g", "stateful": false});
        let group = id(&cloud.make("member", "security-groups", "security_group", group).await);
        let with = json!({"port": {"security_groups": [group]}});
        assert_eq!(cloud.call("member", "PUT", &format!("ports/{port}"), with).await.status, 200);
        assert!(desired(cloud, "one").await.ports[&port].stateless);
        let path = format!("security-groups/{group}");
        let other = json!({"security_group": {"stateful": true}});
        assert_eq!(cloud.call("member", "PUT", &path, other).await.error(), "SecurityGroupInUse");
    })
    .await;
}
