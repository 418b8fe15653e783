//! Networking over its HTTP surface, on every database: what each write path must refuse, what must stay while it is
//! used, and what holds when many come at once.

use crate::cloud::{Cloud, NOWHERE, OTHER, OWN, id, on_all};
use base::Json;
use futures::future::join_all;
use neutron::{MIGRATIONS, Options, TABLES};
use serde_json::json;
use std::collections::BTreeSet;

const STRANGER: &str = "member@0e8a7f6c000040008000000000000002";

#[tokio::test(flavor = "multi_thread")]
async fn both_databases_understand_every_statement() {
    on_all(Options::default(), async |cloud| {
        assert!(db::testing::prepare_all(&cloud.database.db, TABLES).await.unwrap() > 60);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_database_comes_to_today() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("neutron.db").display());
    let options = db::Options { durable: false, ..db::Options::new(url) };
    let old = db::Db::open(&options, TABLES, MIGRATIONS).await.unwrap();
    let to_the_first = [
        "DROP INDEX security_group_rules_remote_address_group_id",
        "ALTER TABLE security_group_rules DROP COLUMN remote_address_group_id",
        "DROP INDEX networks_qos_policy_id",
        "DROP INDEX ports_qos_policy_id",
        "ALTER TABLE networks DROP COLUMN qos_policy_id",
        "ALTER TABLE ports DROP COLUMN qos_policy_id",
        "ALTER TABLE routers DROP COLUMN availability_zone_hints",
        "DROP TABLE rbac_policies",
        "DROP TABLE network_agents",
        "UPDATE schema_version SET number = 0",
    ];
    old.write(move |tx| to_the_first.iter().try_for_each(|sql| tx.execute(sql, &[]).map(drop)))
        .await
        .unwrap();
    drop(old);
    let new = db::Db::open(&options, TABLES, MIGRATIONS).await.unwrap();
    assert!(db::testing::prepare_all(&new, TABLES).await.unwrap() > 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_against_a_quota_of_ten_are_exactly_ten() {
    on_all(Options::default(), async |cloud| {
        let network = cloud.network("admin@0e8a7f6c000040008000000000000003").await;
        let shared = json!({"network": {"shared": true}});
        assert_eq!(cloud.call("admin", "PUT", &format!("networks/{network}"), shared).await.status, 200);
        let quota = json!({"quota": {"network": 10, "port": 10, "router": 10, "security_group": 10}});
        assert_eq!(cloud.call("admin", "PUT", &format!("quotas/{OWN}"), quota).await.status, 200);
        // The default group counts.
        cloud.get("member", "security-groups").await;
        let nouns = [
            ("networks", json!({"network": {}}), 10),
            ("ports", json!({"port": {"network_id": network}}), 10),
            ("routers", json!({"router": {}}), 10),
            ("security-groups", json!({"security_group": {"name": "g"}}), 9),
        ];
        for (path, body, left) in nouns {
            let answers = join_all((0..100).map(|_| cloud.call("member", "POST", path, body.clone()))).await;
            let made = answers.iter().filter(|answer| answer.status == 201).count();
            let refused = answers.iter().filter(|answer| answer.error() == "OverQuota").count();
            assert_eq!((made, refused), (left, 100 - left), "{path}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_are_set_forced_and_forgotten() {
    on_all(Options::default(), async |cloud| {
        let path = format!("quotas/{OWN}");
        cloud.network("member").await;
        cloud.network("member").await;
        let set = async |body: Json| cloud.call("admin", "PUT", &path, json!({"quota": body})).await;
        assert_eq!(set(json!({"network": 1})).await.status, 400, "below what is used");
        assert_eq!(set(json!({"network": 1, "force": true})).await.body["quota"]["network"], 1);
        assert_eq!(cloud.call("member", "POST", "networks", json!({"network": {}})).await.status, 409);
        assert_eq!(set(json!({"network": -1})).await.status, 200);
        cloud.network("member").await;
        let details = cloud.get("member", &format!("{path}/details.json")).await;
        assert_eq!(details["quota"]["network"], json!({"limit": -1, "used": 3, "reserved": 0}));
        assert_eq!(cloud.get("admin", "quotas").await["quotas"][0]["project_id"], OWN);
        assert_eq!(cloud.call("admin", "DELETE", &path, Json::Null).await.status, 204);
        assert_eq!(cloud.call("admin", "DELETE", &path, Json::Null).await.error(), "TenantQuotaNotFound");
        assert_eq!(cloud.get("member", &path).await["quota"]["network"], 100);
        for wrong in
            [json!({"cats": 1}), json!({"network": "many"}), json!({"network": -2}), json!({"port": null})]
        {
            assert_eq!(set(wrong.clone()).await.status, 400, "{wrong}");
        }
        for token in ["member", "reader", STRANGER] {
            let answer = cloud.call(token, "PUT", &path, json!({"quota": {"network": 1}})).await;
            assert_eq!(answer.status, 403, "{token}");
        }
    })
    .await;
}

/// What there is of each noun, by its path.
async fn one_of_each(cloud: &Cloud) -> Vec<(&'static str, &'static str, String)> {
    let network = cloud.network("member").await;
    let subnet = cloud.subnet("member", &network, "10.0.0.0/24").await;
    let port = id(&cloud.make("member", "ports", "port", json!({"network_id": network})).await);
    let make = async |path: &str, noun: &str, body: Json| id(&cloud.make("member", path, noun, body).await);
    let group = make("security-groups", "security_group", json!({"name": "g"})).await;
    let router = make("routers", "router", json!({"name": "r"})).await;
    let pool = make("subnetpools", "subnetpool", json!({"name": "p", "prefixes": ["10.8.0.0/16"]})).await;
    let addresses = make("address-groups", "address_group", json!({"name": "a"})).await;
    let scope = make("address-scopes", "address_scope", json!({"name": "a", "ip_version": 4})).await;
    let policy = json!({
        "object_type": "subnetpool", "object_id": pool, "action": "access_as_shared",
        "target_tenant": "0e8a7f6c000040008000000000000009",
    });
    let policy = make("rbac-policies", "rbac_policy", policy).await;
    let floating = json!({"floating_network_id": cloud.external().await});
    let floating = make("floatingips", "floatingip", floating).await;
    let parent = json!({"network_id": cloud.network("member").await});
    let parent = make("ports", "port", parent).await;
    let trunk = make("trunks", "trunk", json!({"port_id": parent})).await;
    vec![
        ("trunks", "trunk", trunk),
        ("floatingips", "floatingip", floating),
        ("ports", "port", port),
        ("subnets", "subnet", subnet),
        ("networks", "network", network),
        ("security-groups", "security_group", group),
        ("routers", "router", router),
        ("rbac-policies", "rbac_policy", policy),
        ("subnetpools", "subnetpool", pool),
        ("address-scopes", "address_scope", scope),
        ("address-groups", "address_group", addresses),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_noun_refuses_rubbish_strangers_and_readers() {
    on_all(Options::default(), async |cloud| {
        let long = "x".repeat(256);
        for (path, noun, id) in one_of_each(cloud).await {
            let one = format!("{path}/{id}");
            let missing = format!("{path}/{NOWHERE}");
            let unnamed = noun == "floatingip" || noun == "rbac_policy";
            let text = if unnamed { "description" } else { "name" };
            let bodies = [
                (json!({noun: {"colour": "red"}}), 400),
                (json!({noun: 7}), 400),
                (json!({"pigeon": {}}), 400),
                (json!([]), 400),
                (json!({noun: {text: 7}}), 400),
                (json!({noun: {text: long}}), 400),
                (json!({noun: {"project_id": OTHER}}), 400),
            ];
            for (body, status) in bodies {
                for (method, path) in [("POST", path), ("PUT", one.as_str())] {
                    let answer = cloud.call("member", method, path, body.clone()).await;
                    let said = format!(
                        "{method} {path} {}: {}",
                        &body.to_string()[..20.min(body.to_string().len())],
                        answer.body
                    );
                    assert_eq!(answer.status, status, "{said}");
                }
            }
            let change = if noun == "rbac_policy" { json!({"target_tenant": OTHER}) } else { json!({}) };
            for (token, method, path, status) in [
                ("reader", "PUT", &one, 403),
                ("reader", "DELETE", &one, 403),
                (STRANGER, "GET", &one, 404),
                (STRANGER, "PUT", &one, 404),
                (STRANGER, "DELETE", &one, 404),
                ("norole", "DELETE", &one, 404),
                ("nobody", "GET", &one, 401),
                ("member", "GET", &missing, 404),
                ("member", "PUT", &missing, 404),
                ("member", "DELETE", &missing, 404),
                ("member", "GET", &one, 200),
                ("member", "PUT", &one, 200),
            ] {
                let body = if method == "PUT" { json!({noun: change}) } else { Json::Null };
                let answer = cloud.call(token, method, path, body).await;
                assert_eq!(answer.status, status, "{token} {method} {path}: {}", answer.body);
            }
            let listed = cloud.get(STRANGER, path).await;
            assert!(!listed.to_string().contains(&id), "{path} shows a stranger {id}");
            assert_eq!(cloud.call("member", "DELETE", &one, Json::Null).await.status, 204, "{one}");
            assert_eq!(cloud.call("member", "DELETE", &one, Json::Null).await.status, 404, "{one} twice");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_stays() {
    on_all(Options::default(), async |cloud| {
        let network = cloud.network("member").await;
        let subnet = cloud.subnet("member", &network, "10.0.0.0/24").await;
        let group =
            id(&cloud.make("member", "security-groups", "security_group", json!({"name": "g"})).await);
        let port = json!({"network_id": network, "security_groups": [group]});
        let port = id(&cloud.make("member", "ports", "port", port).await);
        let outside = cloud.external().await;
        let router = json!({"external_gateway_info": {"network_id": outside}});
        let router = id(&cloud.make("member", "routers", "router", router).await);
        let path = format!("routers/{router}/add_router_interface");
        assert_eq!(cloud.call("member", "PUT", &path, json!({"subnet_id": subnet})).await.status, 200);
        let floating = json!({"floating_network_id": outside, "port_id": port});
        let floating = id(&cloud.make("member", "floatingips", "floatingip", floating).await);
        let refused = async |token: &str, method: &str, path: String, body: Json, error: &str| {
            let answer = cloud.call(token, method, &path, body).await;
            assert_eq!((answer.status, answer.error()), (409, error), "{method} {path}: {}", answer.body);
        };
        refused("member", "DELETE", format!("networks/{network}"), Json::Null, "NetworkInUse").await;
        refused("member", "DELETE", format!("subnets/{subnet}"), Json::Null, "SubnetInUse").await;
        refused("member", "DELETE", format!("security-groups/{group}"), Json::Null, "SecurityGroupInUse")
            .await;
        refused("member", "DELETE", format!("routers/{router}"), Json::Null, "RouterInUse").await;
        let by_subnet = json!({"subnet_id": subnet});
        let path = format!("routers/{router}/remove_router_interface");
        refused("member", "PUT", path, by_subnet.clone(), "RouterInterfaceInUseByFloatingIP").await;
        let bare = json!({"router": {"external_gateway_info": {}}});
        let path = format!("routers/{router}");
        refused("member", "PUT", path, bare, "RouterExternalGatewayInUseByFloatingIp").await;
        let inside = json!({"network": {"router:external": false}});
        refused("admin", "PUT", format!("networks/{outside}"), inside, "ExternalNetworkInUse").await;
        let ports = cloud.get("admin", &format!("ports?device_id={router}")).await;
        for port in ports["ports"].as_array().unwrap() {
            refused("admin", "DELETE", format!("ports/{}", id(port)), Json::Null, "ServicePortInUse").await;
        }
        // In the right order all of it goes.
        for (method, path, body) in [
            ("DELETE", format!("floatingips/{floating}"), Json::Null),
            ("PUT", format!("routers/{router}/remove_router_interface"), by_subnet),
            ("DELETE", format!("routers/{router}"), Json::Null),
            ("DELETE", format!("ports/{port}"), Json::Null),
            ("DELETE", format!("security-groups/{group}"), Json::Null),
            ("DELETE", format!("subnets/{subnet}"), Json::Null),
            ("DELETE", format!("networks/{network}"), Json::Null),
        ] {
            let answer = cloud.call("member", method, &path, body).await;
            assert!(matches!(answer.status, 200 | 204), "{method} {path}: {}", answer.body);
        }
        assert_eq!(cloud.get("admin", "ports").await["ports"], json!([]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_an_address_or_a_range_that_another_has() {
    on_all(Options::default(), async |cloud| {
        let network = cloud.network("member").await;
        let subnet = cloud.subnet("member", &network, "10.0.0.0/27").await;
        let same = json!({"port": {"network_id": network, "fixed_ips": [{"ip_address": "10.0.0.9"}]}});
        let answers = join_all((0..20).map(|_| cloud.call("member", "POST", "ports", same.clone()))).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
        let taken = answers.iter().filter(|answer| answer.error() == "IpAddressAlreadyAllocated").count();
        assert_eq!(taken, 19);
        // 30 addresses, of which the gateway and the one above are taken.
        let any = json!({"port": {"network_id": network}});
        let answers = join_all((0..40).map(|_| cloud.call("member", "POST", "ports", any.clone()))).await;
        let addresses: BTreeSet<String> = answers
            .iter()
            .filter(|answer| answer.status == 201)
            .map(|answer| answer.body["port"]["fixed_ips"][0]["ip_address"].to_string())
            .collect();
        assert_eq!(addresses.len(), 28, "of subnet {subnet}");
        let none_left =
            answers.iter().filter(|answer| answer.error() == "IpAddressGenerationFailure").count();
        assert_eq!(none_left, 12);

        let pool = json!({"prefixes": ["10.8.0.0/24"], "default_prefixlen": 28});
        let pool = id(&cloud.make("member", "subnetpools", "subnetpool", pool).await);
        let network = cloud.network("member").await;
        let wanted = json!({"subnet": {"network_id": network, "ip_version": 4, "subnetpool_id": pool}});
        let answers =
            join_all((0..20).map(|_| cloud.call("member", "POST", "subnets", wanted.clone()))).await;
        let ranges: BTreeSet<String> = answers
            .iter()
            .filter(|answer| answer.status == 201)
            .map(|answer| answer.body["subnet"]["cidr"].to_string())
            .collect();
        assert_eq!(ranges.len(), 16);
        assert!(answers.iter().all(|answer| matches!(answer.status, 201 | 409)));
        let answer = cloud.call("member", "DELETE", &format!("subnetpools/{pool}"), Json::Null).await;
        assert_eq!(answer.error(), "SubnetPoolDeleteError");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_and_policies_say_the_same() {
    on_all(Options::default(), async |cloud| {
        let network = cloud.network("member").await;
        let path = format!("networks/{network}");
        let shared = async |token: &str| cloud.get(token, &path).await["network"]["shared"].clone();
        let policies = async || cloud.get("admin", "rbac-policies").await["rbac_policies"].clone();
        let flag = async |name: &str, on: bool| {
            cloud.call("admin", "PUT", &path, json!({"network": {name: on}})).await.status
        };
        assert_eq!(flag("shared", true).await, 200);
        assert_eq!(policies().await[0]["target_tenant"], "*");
        assert_eq!(shared(STRANGER).await, true);
        let policy = id(&policies().await[0]);
        assert_eq!(cloud.call("admin", "DELETE", &format!("rbac-policies/{policy}"), Json::Null).await.status, 204);
        assert_eq!(shared("member").await, false);
        assert_eq!(cloud.call(STRANGER, "GET", &path, Json::Null).await.status, 404);
        // For one project: it sees the network as shared, its owner does not.
        let one = json!({
            "object_type": "network", "object_id": network, "action": "access_as_shared", "target_tenant": OTHER,
        });
        cloud.make("member", "rbac-policies", "rbac_policy", one).await;
        assert_eq!((shared(STRANGER).await, shared("member").await), (json!(true), json!(false)));
        cloud.subnet("member", &network, "10.0.0.0/24").await;
        assert_eq!(cloud.get(STRANGER, "subnets").await["subnets"].as_array().unwrap().len(), 1);
        let port = id(&cloud.make(STRANGER, "ports", "port", json!({"network_id": network})).await);
        let policy = id(&policies().await[0]);
        let answer = cloud.call("member", "DELETE", &format!("rbac-policies/{policy}"), Json::Null).await;
        assert_eq!((answer.status, answer.error()), (409, "RbacPolicyInUse"));
        assert_eq!(cloud.call(STRANGER, "DELETE", &format!("ports/{port}"), Json::Null).await.status, 204);
        assert_eq!(cloud.call("member", "DELETE", &format!("rbac-policies/{policy}"), Json::Null).await.status, 204);
        assert_eq!(cloud.get(STRANGER, "subnets").await["subnets"], json!([]));
        // What goes takes its policies along.
        assert_eq!(flag("router:external", true).await, 200);
        assert_eq!(policies().await[0]["action"], "access_as_external");
        assert_eq!(cloud.call("member", "DELETE", &path, Json::Null).await.status, 204);
        assert_eq!(policies().await, json!([]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_added_at_once_are_all_there() {
    on_all(Options::default(), async |cloud| {
        let network = cloud.network("member").await;
        let paths: Vec<String> = (0..20).map(|n| format!("networks/{network}/tags/t{n}")).collect();
        let answers = join_all(paths.iter().map(|path| cloud.call("member", "PUT", path, Json::Null))).await;
        assert!(answers.iter().all(|answer| answer.status == 201));
        let tags = cloud.get("member", &format!("networks/{network}/tags")).await;
        assert_eq!(tags["tags"].as_array().unwrap().len(), 20);
        let odd = json!({"tags": ["100%", "a_b", "x\"y"]});
        assert_eq!(cloud.call("member", "PUT", &format!("networks/{network}/tags"), odd).await.status, 200);
        for (query, count) in [("tags=100%25", 1), ("tags=10%25", 0), ("tags=a_b", 1), ("tags=axb", 0)] {
            let found = cloud.get("member", &format!("networks?{query}")).await;
            assert_eq!(found["networks"].as_array().unwrap().len(), count, "{query}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_groups_begin_with_the_default_rules() {
    on_all(Options::default(), async |cloud| {
        let rule = json!({
            "direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22,
            "used_in_default_sg": false, "used_in_non_default_sg": true,
        });
        let path = "default-security-group-rules";
        cloud.make("admin", path, "default_security_group_rule", rule).await;
        let group = cloud.make("member", "security-groups", "security_group", json!({"name": "g"})).await;
        let rules = group["security_group_rules"].as_array().unwrap();
        assert_eq!(rules.len(), 3);
        assert!(rules.iter().any(|rule| rule["port_range_min"] == 22));
        let groups = cloud.get("member", "security-groups?name=default").await;
        let rules = groups["security_groups"][0]["security_group_rules"].as_array().unwrap();
        assert_eq!(rules.len(), 4);
        assert!(rules.iter().all(|rule| rule["port_range_min"].is_null()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subnets_of_a_service_are_for_its_ports() {
    on_all(Options::default(), async |cloud| {
        let network = cloud.network("admin").await;
        let service = json!({
            "network_id": network, "ip_version": 4, "cidr": "10.1.0.0/24", "service_types": ["compute:nova"],
        });
        let service = id(&cloud.make("admin", "subnets", "subnet", service).await);
        let answer = cloud.call("admin", "POST", "ports", json!({"port": {"network_id": network}})).await;
        assert_eq!(answer.error(), "IpAddressGenerationFailureNoMatchingSubnet");
        let plain = cloud.subnet("admin", &network, "10.2.0.0/24").await;
        for (owner, subnet) in [("compute:nova", &service), ("", &plain)] {
            let port = json!({"network_id": network, "device_owner": owner});
            let port = cloud.make("admin", "ports", "port", port).await;
            assert_eq!(port["fixed_ips"][0]["subnet_id"], **subnet, "{owner}");
        }
        let answer = cloud
            .call(
                "member",
                "POST",
                "subnets",
                json!({"subnet": {"network_id": network, "ip_version": 4,
                "cidr": "10.3.0.0/24", "service_types": ["x"]}}),
            )
            .await;
        assert_eq!(answer.status, 403);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_are_added_and_taken_away_one_by_one() {
    on_all(Options::default(), async |cloud| {
        let network = cloud.network("member").await;
        let subnet = cloud.subnet("member", &network, "10.0.0.0/24").await;
        let router = id(&cloud.make("member", "routers", "router", json!({})).await);
        let interface = json!({"subnet_id": subnet});
        let path = format!("routers/{router}/add_router_interface");
        assert_eq!(cloud.call("member", "PUT", &path, interface).await.status, 200);
        let route = |n: u8| json!({"destination": format!("10.{n}.0.0/16"), "nexthop": "10.0.0.7"});
        let change = async |verb: &str, route: Json| {
            let path = format!("routers/{router}/{verb}_extraroutes");
            cloud.call("member", "PUT", &path, json!({"router": {"routes": [route]}})).await
        };
        join_all((1..=5).map(|n| change("add", route(n)))).await;
        let shown =
            async || cloud.get("member", &format!("routers/{router}")).await["router"]["routes"].clone();
        assert_eq!(shown().await.as_array().unwrap().len(), 5);
        assert_eq!(change("remove", route(3)).await.status, 200);
        assert_eq!(shown().await.as_array().unwrap().len(), 4);
        let elsewhere = json!({"destination": "10.9.0.0/16", "nexthop": "192.168.0.1"});
        assert_eq!(change("add", elsewhere).await.error(), "InvalidRoutes");
        let path = format!("routers/{router}/add_extraroutes");
        let body = json!({"router": {"routes": [route(9)]}});
        assert_eq!(cloud.call("reader", "PUT", &path, body.clone()).await.status, 403);
        assert_eq!(cloud.call(STRANGER, "PUT", &path, body).await.status, 404);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_make_addresses_only_where_both_sides_agree() {
    on_all(Options::default(), async |cloud| {
        let network = cloud.network("member").await;
        let subnet = async |more: Json| {
            let mut wanted = json!({"network_id": network, "ip_version": 6});
            wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            cloud.call("member", "POST", "subnets", json!({"subnet": wanted})).await
        };
        for wrong in [
            json!({"cidr": "fd01::/64", "ipv6_address_mode": "slaac", "ipv6_ra_mode": "dhcpv6-stateless"}),
            json!({"cidr": "fd01::/64", "ipv6_address_mode": "slaac", "enable_dhcp": false}),
            json!({"cidr": "fd01::/60", "ipv6_ra_mode": "slaac"}),
            json!({"cidr": "10.0.0.0/24", "ip_version": 4, "ipv6_ra_mode": "slaac"}),
            json!({"cidr": "fd01::/64", "ipv6_ra_mode": "pigeon"}),
        ] {
            assert_eq!(subnet(wrong.clone()).await.status, 400, "{wrong}");
        }
        let stateful = json!({"cidr": "fd02::/64", "ipv6_address_mode": "dhcpv6-stateful"});
        let stateful = id(&subnet(stateful).await.body["subnet"]);
        let slaac = json!({"cidr": "fd03::/64", "ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"});
        let slaac = id(&subnet(slaac).await.body["subnet"]);
        let off = json!({"subnet": {"enable_dhcp": false}});
        assert_eq!(cloud.call("member", "PUT", &format!("subnets/{slaac}"), off).await.status, 400);
        let port = cloud.make("member", "ports", "port", json!({"network_id": network})).await;
        let of_port = port["fixed_ips"].as_array().unwrap();
        let subnets: Vec<&Json> = of_port.iter().map(|fixed| &fixed["subnet_id"]).collect();
        assert_eq!(subnets, [&json!(stateful), &json!(slaac)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_floating_addresses_go_with_their_network() {
    on_all(Options::default(), async |cloud| {
        let outside = cloud.external().await;
        let wanted = json!({"floating_network_id": outside});
        cloud.make("member", "floatingips", "floatingip", wanted).await;
        assert_eq!(
            cloud.call("admin", "DELETE", &format!("networks/{outside}"), Json::Null).await.status,
            204
        );
        assert_eq!(cloud.get("member", "floatingips").await["floatingips"], json!([]));
        assert_eq!(cloud.get("admin", "ports").await["ports"], json!([]));
        let group =
            id(&cloud.make("member", "security-groups", "security_group", json!({"name": "g"})).await);
        let default = json!({"security_group": {"name": "default"}});
        let answer = cloud.call("member", "PUT", &format!("security-groups/{group}"), default).await;
        assert_eq!(answer.error(), "SecurityGroupDefaultAlreadyExists");
    })
    .await;
}
