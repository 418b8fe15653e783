//! Trunks: what may be one, where subports are, and how trunks stand as hosts report.

use crate::cloud::{Cloud, HOST, NOWHERE, OTHER, OWN, Told, id, on_all};
use base::{Context, Json};
use bus::Topic;
use contracts::{
    agents::network::{AGENT_TOPIC, Change, NetworkReports, PortsState, network_agent_handlers},
    networks::{Binding, Networks},
};
use futures::future::join_all;
use neutron::Options;
use serde_json::json;
use std::sync::Arc;

const SERVER: &str = "cccccccc-0000-4000-8000-000000000001";
const THERE: &str = "host-2";

async fn port(cloud: &Cloud, network: &str) -> String {
    id(&cloud.make("member", "ports", "port", json!({"network_id": network})).await)
}

async fn shown(cloud: &Cloud, port: &str) -> Json {
    cloud.get("admin", &format!("ports/{port}")).await["port"].clone()
}

fn subport(port: &str, vlan: i64) -> Json {
    json!({"port_id": port, "segmentation_type": "vlan", "segmentation_id": vlan})
}

/// A trunk with one subport, and its two ports.
async fn trunk(cloud: &Cloud) -> (String, String, String) {
    let (network, other) = (cloud.network("member").await, cloud.network("member").await);
    let (parent, sub) = (port(cloud, &network).await, port(cloud, &other).await);
    let wanted = json!({"port_id": parent, "sub_ports": [subport(&sub, 100)]});
    (id(&cloud.make("member", "trunks", "trunk", wanted).await), parent, sub)
}

async fn bind(cloud: &Cloud, port: &str, host: &str) {
    let binding = Binding {
        port_id: port.into(),
        device_id: SERVER.into(),
        device_owner: "compute:nova".into(),
        host: host.into(),
        ..Binding::default()
    };
    cloud.neutron.bind_port(&Context::internal(), &binding).await.unwrap();
}

async fn status(cloud: &Cloud, trunk: &str) -> String {
    let trunk = cloud.get("member", &format!("trunks/{trunk}")).await["trunk"].clone();
    trunk["status"].as_str().unwrap().into()
}

async fn eventually(cloud: &Cloud, trunk: &str, wanted: &str) {
    for _ in 0..500 {
        if status(cloud, trunk).await == wanted {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(status(cloud, trunk).await, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn subports_are_where_their_parent_is() {
    on_all(Options::default(), async |cloud| {
        let told = Arc::new(Told::default());
        let handlers = network_agent_handlers(told.clone());
        let _agent = cloud.bus.serve(Topic::on(AGENT_TOPIC, HOST), handlers).await.unwrap();
        cloud.agent_reports(HOST).await;
        let (trunk, parent, sub) = trunk(cloud).await;
        assert_eq!(shown(cloud, &sub).await["device_owner"], "");
        bind(cloud, &parent, HOST).await;
        let there = shown(cloud, &sub).await;
        assert_eq!(there["binding:host_id"], HOST, "{there}");
        assert_eq!((&there["device_owner"], &there["device_id"]), (&json!("trunk:subport"), &json!("")));
        let state = cloud.neutron.host_state(&Context::internal(), HOST).await.unwrap().desired;
        let place = state.ports[&sub].subport.clone().unwrap();
        assert_eq!((place.parent.as_str(), place.vlan), (parent.as_str(), 100));
        assert!(state.ports[&parent].subport.is_none());
        assert!(state.networks.contains_key(&state.ports[&sub].network_id), "the host has its network");

        // It stands with its last port, and does not with the first that is gone.
        assert_eq!(status(cloud, &trunk).await, "DOWN");
        cloud.ports_report(&[&parent], &[]).await;
        assert_eq!(status(cloud, &trunk).await, "BUILD");
        cloud.ports_report(&[&sub], &[]).await;
        assert_eq!(status(cloud, &trunk).await, "ACTIVE");
        cloud.ports_report(&[], &[&sub]).await;
        assert_eq!(status(cloud, &trunk).await, "BUILD");
        let failed = [(sub.clone(), "no".to_string())].into();
        let state = PortsState { host: HOST.into(), failed, ..PortsState::default() };
        cloud.neutron.ports_reported(&Context::internal(), &state).await.unwrap();
        assert_eq!(status(cloud, &trunk).await, "DEGRADED");
        cloud.ports_report(&[&sub], &[]).await;
        assert_eq!(status(cloud, &trunk).await, "ACTIVE");

        // One more goes where the parent is; one less goes from there, and the trunk stands when the host knows.
        let more = port(cloud, shown(cloud, &sub).await["network_id"].as_str().unwrap()).await;
        let change = async |action: &str, body: Json| {
            let path = format!("trunks/{trunk}/{action}");
            cloud.call("member", "PUT", &path, json!({"sub_ports": [body]})).await
        };
        let added = change("add_subports", subport(&more, 101)).await;
        assert_eq!((added.status, &added.body["status"]), (200, &json!("DOWN")), "{}", added.body);
        assert_eq!(shown(cloud, &more).await["binding:host_id"], HOST);
        eventually(cloud, &trunk, "BUILD").await;
        cloud.ports_report(&[&more], &[]).await;
        assert_eq!(status(cloud, &trunk).await, "ACTIVE");
        let removed = change("remove_subports", json!({"port_id": more})).await;
        assert_eq!((removed.status, &removed.body["status"]), (200, &json!("DOWN")), "{}", removed.body);
        let left = shown(cloud, &more).await;
        assert_eq!((&left["binding:host_id"], &left["device_owner"]), (&json!(""), &json!("")), "{left}");
        eventually(cloud, &trunk, "ACTIVE").await;
        // The host is told that it has it no more.
        let gone = |change: &Change| change.ports.get(&more).is_some_and(Option::is_none);
        while !told.0.lock().unwrap().iter().any(gone) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }

        // Neither goes while they are used; with the server's end they are on no host.
        let refused = cloud.call("member", "DELETE", &format!("trunks/{trunk}"), Json::Null).await;
        assert_eq!(refused.error(), "TrunkInUse");
        for (port, error) in [(&parent, "PortInUseAsTrunkParent"), (&sub, "PortInUseAsSubPort")] {
            let refused = cloud.call("admin", "DELETE", &format!("ports/{port}"), Json::Null).await;
            assert_eq!((refused.status, refused.error()), (409, error));
        }
        cloud.neutron.unbind_port(&Context::internal(), &parent).await.unwrap();
        assert_eq!(shown(cloud, &sub).await["binding:host_id"], "");
        assert_eq!(status(cloud, &trunk).await, "DOWN");
        assert_eq!(cloud.call("member", "DELETE", &format!("trunks/{trunk}"), Json::Null).await.status, 204);
        assert_eq!(shown(cloud, &sub).await["device_owner"], "");
        assert_eq!(cloud.call("member", "DELETE", &format!("ports/{sub}"), Json::Null).await.status, 204);
    })
    .await;
}

/// A server that moves takes the VLANs of its guest along.
#[tokio::test(flavor = "multi_thread")]
async fn subports_move_with_their_parent() {
    on_all(Options::default(), async |cloud| {
        cloud.agent_reports(HOST).await;
        cloud.agent_reports(THERE).await;
        let (trunk, parent, sub) = trunk(cloud).await;
        bind(cloud, &parent, HOST).await;
        cloud.ports_report(&[&parent, &sub], &[]).await;
        assert_eq!(status(cloud, &trunk).await, "ACTIVE");
        let cx = Context::internal();
        cloud.neutron.create_binding(&cx, &parent, THERE, &Default::default()).await.unwrap();
        for host in [HOST, THERE] {
            let state = cloud.neutron.host_state(&cx, host).await.unwrap().desired;
            assert!(state.ports.contains_key(&parent), "{host}");
            assert_eq!(state.ports[&sub].subport.as_ref().map(|place| place.vlan), Some(100), "{host}");
        }
        let ports = [parent.clone(), sub.clone()].into();
        let state = PortsState { host: THERE.into(), up: ports, ..PortsState::default() };
        cloud.neutron.ports_reported(&cx, &state).await.unwrap();
        // One that comes while it moves comes along.
        let late = port(cloud, shown(cloud, &sub).await["network_id"].as_str().unwrap()).await;
        let body = json!({"sub_ports": [subport(&late, 102)]});
        let path = format!("trunks/{trunk}/add_subports");
        assert_eq!(cloud.call("member", "PUT", &path, body).await.status, 200);
        cloud.neutron.activate_binding(&cx, &parent, THERE).await.unwrap();
        cloud.neutron.delete_binding(&cx, &parent, HOST).await.unwrap();
        for port in [&parent, &sub, &late] {
            assert_eq!(shown(cloud, port).await["binding:host_id"], THERE);
        }
        let state = cloud.neutron.host_state(&cx, HOST).await.unwrap().desired;
        assert!(state.ports.is_empty(), "{:?}", state.ports.keys());
        assert_eq!(status(cloud, &trunk).await, "BUILD");
        let state = PortsState { host: THERE.into(), up: [late].into(), ..PortsState::default() };
        cloud.neutron.ports_reported(&cx, &state).await.unwrap();
        assert_eq!(status(cloud, &trunk).await, "ACTIVE");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trunks_that_are_refused() {
    on_all(Options::default(), async |cloud| {
        let network = cloud.network("member").await;
        let vlan = json!({"provider:network_type": "vxlan", "project_id": OTHER});
        let foreign = id(&cloud.make("admin", "networks", "network", vlan).await);
        let wanted = json!({"network_id": foreign, "project_id": OTHER});
        let theirs = id(&cloud.make("admin", "ports", "port", wanted).await);
        let (parent, sub) = (port(cloud, &network).await, port(cloud, &network).await);
        let ask =
            async |token: &str, body: Json| cloud.call(token, "POST", "trunks", json!({"trunk": body})).await;
        let with = |one: Json| json!({"port_id": parent, "sub_ports": [one]});
        for (token, body, error) in [
            ("member", json!({"port_id": theirs}), "PortNotFound"),
            ("member", with(subport(&theirs, 1)), "PortNotFound"),
            ("member", with(subport(NOWHERE, 1)), "PortNotFound"),
            ("member", with(subport(&sub, 0)), "InvalidInput"),
            ("member", with(subport(&sub, 4095)), "InvalidInput"),
            ("member", with(json!({"port_id": sub, "segmentation_type": "inherit"})), "InvalidInput"),
            ("member", with(json!({"port_id": 7})), "HTTPBadRequest"),
            ("member", json!({"port_id": parent, "sub_ports": {}}), "HTTPBadRequest"),
            ("member", json!({"port_id": parent, "tags": ["a"]}), "HTTPBadRequest"),
            ("reader", json!({"port_id": parent}), "PolicyNotAuthorized"),
            ("norole", json!({"port_id": parent}), "PolicyNotAuthorized"),
        ] {
            let answer = ask(token, body.clone()).await;
            assert_eq!(answer.error(), error, "{token} {body}: {}", answer.body);
        }
        let bulk = cloud.call("member", "POST", "trunks", json!({"trunks": []})).await;
        assert_eq!(bulk.status, 400);

        // Of those that want the same at once one gets it.
        let answers = join_all((0..5).map(|_| ask("member", json!({"port_id": parent})))).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
        assert_eq!(answers.iter().filter(|answer| answer.error() == "ParentPortInUse").count(), 4);
        let made = answers.iter().find(|answer| answer.status == 201).unwrap();
        let path = format!("trunks/{}/add_subports", made.body["trunk"]["id"].as_str().unwrap());
        let mut ports = vec![sub.clone()];
        ports.extend(join_all((0..3).map(|_| port(cloud, &network))).await);
        let add = async |port: &String| {
            cloud.call("member", "PUT", &path, json!({"sub_ports": [subport(port, 5)]})).await
        };
        let answers = join_all(ports.iter().map(add)).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
        assert_eq!(answers.iter().filter(|answer| answer.error() == "DuplicateSubPort").count(), 3);

        // As many as the project may have.
        let quota = json!({"quota": {"trunk": 3}});
        assert_eq!(cloud.call("admin", "PUT", &format!("quotas/{OWN}"), quota).await.status, 200);
        let free = join_all((0..6).map(|_| port(cloud, &network))).await;
        let answers = join_all(free.iter().map(|port| ask("member", json!({"port_id": port})))).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 2);
        assert_eq!(answers.iter().filter(|answer| answer.error() == "OverQuota").count(), 4);
    })
    .await;
}

/// A VLAN network's own number.
#[tokio::test(flavor = "multi_thread")]
async fn a_subport_has_the_vlan_of_its_network() {
    let options = Options { network_vlan_ranges: vec!["physnet1".into()], ..Options::default() };
    on_all(options, async |cloud| {
        let wanted = json!({
            "name": "v", "shared": true, "provider:network_type": "vlan", "provider:physical_network": "physnet1",
            "provider:segmentation_id": 77, "mtu": 1400,
        });
        let vlan = id(&cloud.make("admin", "networks", "network", wanted).await);
        let network = cloud.network("member").await;
        let (parent, sub) = (port(cloud, &network).await, port(cloud, &vlan).await);
        let one = json!({"port_id": sub, "segmentation_type": "inherit"});
        let made = cloud.make("member", "trunks", "trunk", json!({"port_id": parent, "sub_ports": [one]})).await;
        assert_eq!(made["sub_ports"], json!([subport(&sub, 77)]));
        let details = &shown(cloud, &parent).await["trunk_details"];
        assert_eq!(details["sub_ports"][0]["mac_address"], shown(cloud, &sub).await["mac_address"]);
    })
    .await;
}
