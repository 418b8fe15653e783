//! Stories of networks: from nothing to a server that is reached from outside, shared networks, and what nobody may do.

use serde_json::{Value, json};
use test_cloud::{Caller, TestCloud, until};

fn id(noun: &Value) -> String {
    noun["id"].as_str().unwrap_or_else(|| panic!("no id in {noun}")).to_string()
}

async fn make(caller: &Caller, path: &str, noun: &str, body: Value) -> Value {
    caller.make("neutron", &format!("/v2.0/{path}"), json!({noun: body})).await[noun].clone()
}

async fn show(caller: &Caller, path: &str, noun: &str) -> Value {
    caller.show("neutron", &format!("/v2.0/{path}")).await[noun].clone()
}

/// Refused with this status and type of error.
async fn refused(caller: &Caller, method: &str, path: &str, body: Value, wanted: (u16, &str)) {
    let body = (!body.is_null()).then_some(body);
    let answer = caller.call(method, "neutron", &format!("/v2.0/{path}"), body).await;
    let said = answer.json().unwrap_or_default();
    let kind = said["NeutronError"]["type"].as_str().unwrap_or_default();
    assert_eq!((answer.status, kind), wanted, "{method} {path}: {said}");
}

async fn done(caller: &Caller, method: &str, path: &str, body: Value) -> Value {
    let body = (!body.is_null()).then_some(body);
    let answer = caller.call(method, "neutron", &format!("/v2.0/{path}"), body).await;
    let said = String::from_utf8_lossy(&answer.body);
    assert!(matches!(answer.status, 200 | 204), "{method} {path}: {} {said}", answer.status);
    answer.json().unwrap_or_default()
}

/// A member of a project of its own.
async fn stranger(cloud: &TestCloud, admin: &Caller) -> Caller {
    let project = admin.make("keystone", "/projects", json!({"project": {"name": "strangers"}})).await;
    let user = json!({"user": {"name": "stranger", "password": "strange-secret"}});
    let user = admin.make("keystone", "/users", user).await;
    let roles = admin.show("keystone", "/roles?name=member").await;
    let (project, user, role) = (id(&project["project"]), id(&user["user"]), id(&roles["roles"][0]));
    let path = format!("/projects/{project}/users/{user}/roles/{role}");
    assert_eq!(admin.put("keystone", &path, Value::Null).await.status, 204);
    Caller::sign_in(&cloud.identity_url(), "stranger", "strange-secret", "strangers").await
}

async fn server(admin: &Caller, demo: &Caller, network: &str) -> String {
    let image = json!({"name": "small", "disk_format": "raw", "container_format": "bare"});
    let image = id(&demo.make("glance", "/v2/images", image).await);
    demo.upload(&image, vec![0; 1 << 20]).await;
    let flavor = json!({"flavor": {"name": "test", "ram": 64, "vcpus": 1, "disk": 1}});
    let flavor = id(&admin.make("nova", "/flavors", flavor).await["flavor"]);
    let server = json!({"server": {
        "name": "first", "imageRef": image, "flavorRef": flavor, "networks": [{"uuid": network}]}});
    let server = id(&demo.make("nova", "/servers", server).await["server"]);
    until("the server", async || {
        let shown = demo.show("nova", &format!("/servers/{server}")).await["server"].clone();
        assert_ne!(shown["status"], "ERROR", "{}", shown["fault"]);
        (shown["status"] == "ACTIVE").then_some(())
    })
    .await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_a_server_that_is_reached_from_outside() {
    let cloud = TestCloud::start().await;
    let (admin, demo) = (cloud.admin().await, cloud.demo().await);
    let network = id(&make(&demo, "networks", "network", json!({"name": "mine"})).await);
    let subnet = json!({"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24"});
    let subnet = id(&make(&demo, "subnets", "subnet", subnet).await);
    let outside = show(&demo, "networks?router:external=true", "networks").await;
    let outside = id(&outside[0]);
    let router = json!({"name": "r", "external_gateway_info": {"network_id": outside}});
    let router = id(&make(&demo, "routers", "router", router).await);
    let interface = json!({"subnet_id": subnet});
    done(&demo, "PUT", &format!("routers/{router}/add_router_interface"), interface.clone()).await;

    let server = server(&admin, &demo, &network).await;
    let ports = show(&demo, &format!("ports?device_id={server}"), "ports").await;
    assert_eq!(ports.as_array().unwrap().len(), 1, "{ports}");
    let port = id(&ports[0]);
    // The agent of the host says that the port stands, neutron says so, and so does nova.
    until("the port ACTIVE", async || {
        (show(&demo, &format!("ports/{port}"), "port").await["status"] == "ACTIVE").then_some(())
    })
    .await;
    until("the interface ACTIVE", async || {
        let shown = demo.show("nova", &format!("/servers/{server}/os-interface")).await;
        (shown["interfaceAttachments"][0]["port_state"] == "ACTIVE").then_some(())
    })
    .await;

    let floating = json!({"floating_network_id": outside, "port_id": port});
    let floating = make(&demo, "floatingips", "floatingip", floating).await;
    let address = floating["floating_ip_address"].as_str().unwrap().to_string();
    let path = format!("floatingips/{}", id(&floating));
    until("the floating address ACTIVE", async || {
        (show(&demo, &path, "floatingip").await["status"] == "ACTIVE").then_some(())
    })
    .await;
    let server_has = async |wanted: bool| {
        until(&format!("the server with {address}: {wanted}"), async || {
            let shown = demo.show("nova", &format!("/servers/{server}")).await["server"].clone();
            let all = shown["addresses"]["mine"].as_array().unwrap().clone();
            let floats = all.iter().any(|one| one["addr"] == address && one["OS-EXT-IPS:type"] == "floating");
            (floats == wanted).then_some(())
        })
        .await;
    };
    server_has(true).await;

    refused(&demo, "DELETE", &format!("networks/{network}"), Value::Null, (409, "NetworkInUse")).await;
    refused(&demo, "DELETE", &format!("subnets/{subnet}"), Value::Null, (409, "SubnetInUse")).await;
    refused(&demo, "DELETE", &format!("routers/{router}"), Value::Null, (409, "RouterInUse")).await;
    refused(&demo, "DELETE", &format!("ports/{port}"), Value::Null, (403, "PolicyNotAuthorized")).await;
    let path_out = format!("routers/{router}/remove_router_interface");
    refused(&demo, "PUT", &path_out, interface.clone(), (409, "RouterInterfaceInUseByFloatingIP")).await;

    done(&demo, "PUT", &path, json!({"floatingip": {"port_id": null}})).await;
    server_has(false).await;
    done(&demo, "DELETE", &path, Value::Null).await;
    assert_eq!(demo.delete("nova", &format!("/servers/{server}")).await.status, 204);
    until("no port of the server", async || {
        let ports = show(&demo, &format!("ports?device_id={server}"), "ports").await;
        ports.as_array().unwrap().is_empty().then_some(())
    })
    .await;
    done(&demo, "PUT", &path_out, interface).await;
    done(&demo, "DELETE", &format!("routers/{router}"), Value::Null).await;
    done(&demo, "DELETE", &format!("networks/{network}"), Value::Null).await;
    let left = show(&admin, "ports", "ports").await;
    assert_eq!(left, json!([]), "something is left over");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_see_what_is_shared_and_nothing_else() {
    let cloud = TestCloud::start().await;
    let (admin, demo) = (cloud.admin().await, cloud.demo().await);
    let other = stranger(&cloud, &admin).await;
    let network = id(&make(&demo, "networks", "network", json!({"name": "mine"})).await);
    let subnet = json!({"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24"});
    let subnet = id(&make(&demo, "subnets", "subnet", subnet).await);
    let path = format!("networks/{network}");
    let on_it = json!({"port": {"network_id": network}});
    let here = json!({"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.1.0.0/24"}});
    let renamed = json!({"network": {"name": "theirs"}});
    let gone = (404, "NetworkNotFound");
    refused(&other, "GET", &path, Value::Null, gone).await;
    refused(&other, "PUT", &path, renamed.clone(), gone).await;
    refused(&other, "DELETE", &path, Value::Null, gone).await;
    refused(&other, "POST", "ports", on_it.clone(), gone).await;
    refused(&other, "GET", &format!("subnets/{subnet}"), Value::Null, (404, "SubnetNotFound")).await;
    let in_demo = json!({"network": {"project_id": demo.project_id}});
    refused(&other, "POST", "networks", in_demo, (400, "HTTPBadRequest")).await;
    let router = id(&make(&other, "routers", "router", json!({})).await);
    let interface = json!({"subnet_id": subnet});
    let path_in = format!("routers/{router}/add_router_interface");
    refused(&other, "PUT", &path_in, interface, (404, "SubnetNotFound")).await;

    // Shared with the stranger's project alone.
    let policy = json!({
        "object_type": "network", "object_id": network, "action": "access_as_shared",
        "target_tenant": other.project_id,
    });
    let policy = id(&make(&demo, "rbac-policies", "rbac_policy", policy).await);
    assert_eq!(show(&other, &path, "network").await["shared"], true);
    assert_eq!(show(&demo, &path, "network").await["shared"], false);
    refused(&other, "PUT", &path, renamed, (403, "PolicyNotAuthorized")).await;
    refused(&other, "POST", "subnets", here, (403, "PolicyNotAuthorized")).await;
    let named = json!({"port": {"network_id": network, "fixed_ips": [{"ip_address": "10.0.0.77"}]}});
    refused(&other, "POST", "ports", named, (403, "PolicyNotAuthorized")).await;
    let port = id(&make(&other, "ports", "port", on_it["port"].clone()).await);
    let unshare = format!("rbac-policies/{policy}");
    refused(&demo, "DELETE", &unshare, Value::Null, (409, "RbacPolicyInUse")).await;
    done(&other, "DELETE", &format!("ports/{port}"), Value::Null).await;
    done(&demo, "DELETE", &unshare, Value::Null).await;
    refused(&other, "GET", &path, Value::Null, gone).await;

    // Wrong kinds, names too long, and what is only for administrators.
    let long = "x".repeat(256);
    let bad = (400, "HTTPBadRequest");
    refused(&demo, "POST", "networks", json!({"network": {"name": 7}}), bad).await;
    refused(&demo, "POST", "networks", json!({"network": {"name": long}}), bad).await;
    refused(&demo, "PUT", &path, json!({"network": {"name": long}}), bad).await;
    refused(&demo, "POST", "subnets", json!({"subnet": {"network_id": 7, "ip_version": 4}}), bad).await;
    refused(&demo, "POST", "networks", json!({"network": {"shared": true}}), (403, "PolicyNotAuthorized"))
        .await;
    refused(&demo, "PUT", &path, json!({"network": {"shared": true}}), (403, "PolicyNotAuthorized")).await;
}
