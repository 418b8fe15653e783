//! Volumes and cards that come and go while a server is there, and servers whose disk is a volume.

use crate::stage::{Stage, id};
use serde_json::{Value, json};
use test_cloud::until;

impl Stage {
    async fn attachments(&self, server: &str) -> Vec<(String, String)> {
        let shown = self.demo.show("nova", &format!("/servers/{server}/os-volume_attachments")).await;
        let all = shown["volumeAttachments"].as_array().unwrap().iter();
        all.map(|one| (test_cloud::text(&one["volumeId"]), test_cloud::text(&one["device"]))).collect()
    }

    async fn attach(&self, server: &str, volume: &str) -> Value {
        let path = format!("/servers/{server}/os-volume_attachments");
        let body = json!({"volumeAttachment": {"volumeId": volume}});
        self.demo.make("nova", &path, body).await["volumeAttachment"].clone()
    }

    async fn addresses(&self, server: &str) -> Vec<String> {
        let shown = self.demo.show("nova", &format!("/servers/{server}/ips")).await;
        let networks = shown["addresses"].as_object().unwrap().values();
        networks.flat_map(|all| all.as_array().unwrap()).map(|one| test_cloud::text(&one["addr"])).collect()
    }

    async fn gone(&self, service: &str, path: &str) {
        until(&format!("{path} gone"), async || {
            (self.demo.get(service, path).await.status == 404).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_come_and_go() {
    let stage = Stage::set().await;
    let server = stage.running("mine", json!({})).await;
    let (one, two) = (stage.volume(json!({"size": 1})).await, stage.volume(json!({"size": 2})).await);
    assert_eq!(stage.attach(&server, &one).await["device"], "/dev/vdb");
    stage.volume_is(&one, "in-use").await;
    assert_eq!(stage.attach(&server, &two).await["device"], "/dev/vdc");
    let shown = stage.volume_is(&two, "in-use").await;
    assert_eq!(shown["attachments"][0]["server_id"], server);
    assert_eq!(shown["attachments"][0]["device"], "/dev/vdc");
    let both = [(one.clone(), "/dev/vdb".to_string()), (two.clone(), "/dev/vdc".to_string())];
    assert_eq!(stage.attachments(&server).await, both);

    let path = format!("/servers/{server}/os-volume_attachments");
    let body = |volume: &str| json!({"volumeAttachment": {"volumeId": volume}});
    let twice = stage.demo.post("nova", &path, body(&one)).await;
    assert_eq!(twice.status, 400, "{}", String::from_utf8_lossy(&twice.body));
    let other = stage.running("other", json!({})).await;
    let taken = stage.demo.post("nova", &format!("/servers/{other}/os-volume_attachments"), body(&one)).await;
    assert_eq!(taken.status, 400, "{}", String::from_utf8_lossy(&taken.body));
    let stranger = stage.stranger("member").await;
    let foreign = id(&stranger.make("cinder", "/volumes", json!({"volume": {"size": 1}})).await["volume"]);
    assert_eq!(stage.demo.post("nova", &path, body(&foreign)).await.status, 404);
    assert_eq!(stranger.post("nova", &path, body(&foreign)).await.status, 404);

    // A stopped server gives and takes them, too, and starts with what it has.
    assert_eq!(stage.action(&server, json!({"os-stop": null})).await.status, 202);
    stage.is(&server, "SHUTOFF").await;
    assert_eq!(stage.demo.delete("nova", &format!("{path}/{one}")).await.status, 202);
    stage.volume_is(&one, "available").await;
    stage.gone("nova", &format!("{path}/{one}")).await;
    assert_eq!(stage.demo.delete("nova", &format!("{path}/{one}")).await.status, 404);
    assert_eq!(stage.action(&server, json!({"os-start": null})).await.status, 202);
    stage.is(&server, "ACTIVE").await;
    assert_eq!(stage.attachments(&server).await, both[1..]);
    stage.delete_all().await;
    stage.volume_is(&two, "available").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_goes_with_its_server_when_it_shall() {
    let stage = Stage::set().await;
    let server = stage.running("mine", json!({})).await;
    let volume = stage.volume(json!({"size": 1})).await;
    let path = format!("/servers/{server}/os-volume_attachments");
    let body = json!({"volumeAttachment": {"volumeId": volume, "delete_on_termination": true}});
    stage.demo.at("compute 2.79").make("nova", &path, body).await;
    stage.volume_is(&volume, "in-use").await;
    stage.delete_all().await;
    stage.gone("cinder", &format!("/volumes/{volume}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn booted_from_a_volume() {
    let stage = Stage::set().await;
    let before = stage.taken().await;
    let device = |keep: bool| {
        json!({"imageRef": "", "block_device_mapping_v2": [{
            "boot_index": 0, "source_type": "image", "uuid": stage.image, "destination_type": "volume",
            "volume_size": 1, "delete_on_termination": !keep}]})
    };
    let goes = stage.running("goes", device(false)).await;
    let shown = stage.demo.show("nova", &format!("/servers/{goes}")).await["server"].clone();
    assert_eq!(shown["image"], "");
    let volume = test_cloud::text(&shown["os-extended-volumes:volumes_attached"][0]["id"]);
    let made = stage.volume_is(&volume, "in-use").await;
    assert_eq!((&made["bootable"], &made["size"]), (&json!("true"), &json!(1)));
    let path = format!("/servers/{goes}/os-volume_attachments/{volume}");
    let refused = stage.demo.delete("nova", &path).await;
    assert_eq!(refused.status, 400, "the disk it runs on");
    let stays = stage.running("stays", device(true)).await;
    let kept = stage.attachments(&stays).await[0].0.clone();
    stage.delete_all().await;
    stage.gone("cinder", &format!("/volumes/{volume}")).await;
    stage.volume_is(&kept, "available").await;

    // And once more from what was kept.
    let again = json!({"imageRef": "", "block_device_mapping_v2": [{
        "boot_index": 0, "source_type": "volume", "uuid": kept, "destination_type": "volume"}]});
    let server = stage.running("again", again).await;
    assert_eq!(stage.attachments(&server).await, [(kept.clone(), "/dev/vda".to_string())]);
    stage.delete_all().await;
    stage.volume_is(&kept, "available").await;
    assert_eq!(stage.demo.delete("cinder", &format!("/volumes/{kept}")).await.status, 202);
    stage.comes_to(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_cannot_be_made_is_told() {
    let stage = Stage::set().await;
    let before = stage.taken().await;
    let quota = json!({"quota_set": {"volumes": 0}});
    let path = format!("/os-quota-sets/{}", stage.demo.project_id);
    assert_eq!(stage.admin.put("cinder", &path, quota).await.status, 200);
    let server = stage
        .create_with(
            "mine",
            json!({"imageRef": "", "block_device_mapping_v2": [{
            "boot_index": 0, "source_type": "image", "uuid": stage.image, "destination_type": "volume",
            "volume_size": 1, "delete_on_termination": true}]}),
        )
        .await;
    let shown = stage.is(&server, "ERROR").await;
    let said = shown["fault"]["message"].as_str().unwrap();
    assert!(said.contains("VolumeLimitExceeded") || said.contains("allowed number of volumes"), "{said}");
    stage.delete_all().await;
    stage.comes_to(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cards_come_and_go() {
    let stage = Stage::set().await;
    let before = stage.taken().await;
    let server = stage.running("mine", json!({})).await;
    let path = format!("/servers/{server}/os-interface");
    let first = stage.addresses(&server).await;
    assert_eq!(first.len(), 1);

    let made =
        stage.demo.make("nova", &path, json!({"interfaceAttachment": {"net_id": stage.network}})).await;
    let made = made["interfaceAttachment"].clone();
    assert_eq!(stage.addresses(&server).await.len(), 2);
    let port = json!({"port": {"network_id": stage.network, "name": "own"}});
    let own = stage.demo.make("neutron", "/v2.0/ports", port).await["port"].clone();
    let body = json!({"interfaceAttachment": {"port_id": own["id"]}});
    let attached = stage.demo.make("nova", &path, body.clone()).await;
    assert_eq!(attached["interfaceAttachment"]["mac_addr"], own["mac_address"]);
    assert_eq!(stage.addresses(&server).await.len(), 3);
    let port_path = format!("/v2.0/ports/{}", id(&own));
    let shown = stage.demo.show("neutron", &port_path).await["port"].clone();
    assert_eq!((&shown["device_id"], &shown["device_owner"]), (&json!(server), &json!("compute:nova")));
    assert_eq!(stage.demo.post("nova", &path, body.clone()).await.status, 409, "it is in use");
    let other = stage.running("other", json!({})).await;
    let taken = stage.demo.post("nova", &format!("/servers/{other}/os-interface"), body).await;
    assert_eq!(taken.status, 409);

    for port_id in [test_cloud::text(&made["port_id"]), id(&own)] {
        assert_eq!(stage.demo.delete("nova", &format!("{path}/{port_id}")).await.status, 202);
        until("the card gone", async || {
            let shown = stage.demo.show("nova", &path).await;
            let all = shown["interfaceAttachments"].as_array().unwrap();
            all.iter().all(|one| one["port_id"] != port_id).then_some(())
        })
        .await;
    }
    until("the addresses as before", async || (stage.addresses(&server).await == first).then_some(())).await;
    stage.gone("neutron", &format!("/v2.0/ports/{}", test_cloud::text(&made["port_id"]))).await;
    let shown = stage.demo.show("neutron", &port_path).await["port"].clone();
    assert_eq!((&shown["device_id"], &shown["device_owner"]), (&json!(""), &json!("")), "its owner keeps it");
    assert_eq!(stage.demo.delete("neutron", &port_path).await.status, 204);
    stage.delete_all().await;
    stage.comes_to(&before).await;
}

/// A port that was given at create stays when the server goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_ones_own_outlives_the_server() {
    let stage = Stage::set().await;
    let port = json!({"port": {"network_id": stage.network}});
    let port = id(&stage.demo.make("neutron", "/v2.0/ports", port).await["port"]);
    let server = stage.running("mine", json!({"networks": [{"port": port}]})).await;
    let body = stage.server("second");
    let mut second = body.clone();
    second["server"]["networks"] = json!([{"port": port}]);
    assert_eq!(stage.demo.post("nova", "/servers", second).await.status, 409, "{server} has it");
    stage.delete_all().await;
    let shown = stage.demo.show("neutron", &format!("/v2.0/ports/{port}")).await["port"].clone();
    assert_eq!((&shown["device_id"], &shown["status"]), (&json!(""), &json!("DOWN")));
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuilt_of_another_image() {
    let stage = Stage::set().await;
    let before = stage.taken().await;
    let server = stage.running("mine", json!({"metadata": {"a": "b"}})).await;
    let volume = stage.volume(json!({"size": 1})).await;
    stage.attach(&server, &volume).await;
    stage.volume_is(&volume, "in-use").await;
    let addresses = stage.addresses(&server).await;
    let image = json!({"name": "other", "disk_format": "raw", "container_format": "bare"});
    let image = id(&stage.demo.make("glance", "/v2/images", image).await);
    let rebuild =
        |image: &str| json!({"rebuild": {"imageRef": image, "name": "anew", "metadata": {"c": "d"}}});
    assert_eq!(stage.action(&server, rebuild(&image)).await.status, 400, "an image without data");
    stage.demo.upload(&image, vec![1; 1 << 20]).await;
    let nothing = "0e8a7f6c-0000-4000-8000-000000000001";
    let refused = stage.action(&server, rebuild(nothing)).await;
    let said = refused.json().unwrap()["badRequest"]["message"].clone();
    assert_eq!((refused.status, said), (400, json!("Cannot find image for rebuild")));
    let answer = stage.action(&server, rebuild(&image)).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json().unwrap()["server"]["status"], "REBUILD");
    let shown = stage.is(&server, "ACTIVE").await;
    assert_eq!((&shown["name"], &shown["image"]["id"]), (&json!("anew"), &json!(image)));
    assert_eq!(shown["metadata"], json!({"c": "d"}));
    assert_eq!(stage.addresses(&server).await, addresses);
    stage.volume_is(&volume, "in-use").await;
    // What was off stays off.
    assert_eq!(stage.action(&server, json!({"os-stop": null})).await.status, 202);
    stage.is(&server, "SHUTOFF").await;
    assert_eq!(stage.action(&server, rebuild(&stage.image)).await.status, 202);
    until("rebuilt", async || {
        let shown = stage.demo.show("nova", &format!("/servers/{server}")).await["server"].clone();
        (shown["image"]["id"] == json!(stage.image) && shown["OS-EXT-STS:task_state"].is_null()).then_some(())
    })
    .await;
    stage.is(&server, "SHUTOFF").await;
    stage.delete_all().await;
    assert_eq!(stage.demo.delete("cinder", &format!("/volumes/{volume}")).await.status, 202);
    stage.comes_to(&before).await;
}

/// Old clients give servers floating addresses through compute.
#[tokio::test(flavor = "multi_thread")]
async fn the_old_way_to_floating_addresses_volumes_and_groups() {
    let stage = Stage::set().await;
    let server = stage.running("mine", json!({})).await;
    let pools = stage.demo.show("nova", "/os-floating-ip-pools").await;
    assert_eq!(pools["floating_ip_pools"], json!([{"name": "public"}]));
    let made =
        stage.demo.make("nova", "/os-floating-ips", json!({"pool": "public"})).await["floating_ip"].clone();
    assert_eq!((&made["pool"], &made["instance_id"]), (&json!("public"), &Value::Null));
    let router = json!({"router": {"name": "way"}});
    let router = id(&stage.demo.make("neutron", "/v2.0/routers", router).await["router"]);
    let network = stage.demo.show("neutron", &format!("/v2.0/networks/{}", stage.network)).await;
    let public = stage.demo.show("neutron", "/v2.0/networks?router:external=true").await;
    let gateway = json!({"router": {"external_gateway_info": {"network_id": public["networks"][0]["id"]}}});
    let path = format!("/v2.0/routers/{router}");
    assert_eq!(stage.demo.put("neutron", &path, gateway).await.status, 200);
    let body = json!({"subnet_id": network["network"]["subnets"][0]});
    assert_eq!(stage.demo.put("neutron", &format!("{path}/add_router_interface"), body).await.status, 200);
    let add = json!({"addFloatingIp": {"address": made["ip"]}});
    let added = stage.action(&server, add).await;
    assert_eq!(added.status, 202, "{}", String::from_utf8_lossy(&added.body));
    assert!(stage.addresses(&server).await.contains(&test_cloud::text(&made["ip"])));
    let shown = stage.demo.show("nova", &format!("/os-floating-ips/{}", id(&made))).await;
    assert_eq!(shown["floating_ip"]["instance_id"], server);
    let take = json!({"removeFloatingIp": {"address": made["ip"]}});
    assert_eq!(stage.action(&server, take.clone()).await.status, 202);
    assert_eq!(stage.action(&server, take).await.status, 409);
    assert_eq!(stage.addresses(&server).await.len(), 1);
    assert_eq!(stage.demo.delete("nova", &format!("/os-floating-ips/{}", id(&made))).await.status, 202);
    stage.gone("nova", &format!("/os-floating-ips/{}", id(&made))).await;

    let body = json!({"volume": {"size": 1, "display_name": "old"}});
    let volume = id(&stage.demo.make("nova", "/os-volumes", body).await["volume"]);
    stage.volume_is(&volume, "available").await;
    let shown = stage.demo.show("nova", &format!("/os-volumes/{volume}")).await["volume"].clone();
    assert_eq!((&shown["displayName"], &shown["attachments"]), (&json!("old"), &json!([{}])));
    let stranger = stage.stranger("member").await;
    assert_eq!(stranger.get("nova", &format!("/os-volumes/{volume}")).await.status, 404);
    assert_eq!(stage.demo.delete("nova", &format!("/os-volumes/{volume}")).await.status, 202);

    let body = json!({"security_group": {"name": "web", "description": "of the web"}});
    let group = id(&stage.demo.make("nova", "/os-security-groups", body).await["security_group"]);
    let rule = json!({"security_group_rule": {
        "parent_group_id": group, "ip_protocol": "tcp", "from_port": 80, "to_port": 80, "cidr": "10.0.0.0/8"}});
    let made = stage.demo.make("nova", "/os-security-group-rules", rule.clone()).await;
    assert_eq!(made["security_group_rule"]["ip_range"], json!({"cidr": "10.0.0.0/8"}));
    assert_eq!(stage.demo.post("nova", "/os-security-group-rules", rule).await.status, 400, "there is one");
    let add = stage.action(&server, json!({"addSecurityGroup": {"name": "web"}})).await;
    assert_eq!(add.status, 202, "{}", String::from_utf8_lossy(&add.body));
    let path = format!("/servers/{server}/os-security-groups");
    let shown = stage.demo.show("nova", &path).await["security_groups"].clone();
    let names: Vec<&Value> = shown.as_array().unwrap().iter().map(|group| &group["name"]).collect();
    assert_eq!(names, ["default", "web"]);
    let path = format!("/os-security-groups/{group}");
    assert_eq!(stage.demo.delete("nova", &path).await.status, 400, "it is in use");
    assert_eq!(stage.action(&server, json!({"removeSecurityGroup": {"name": "web"}})).await.status, 202);
    assert_eq!(stage.demo.delete("nova", &path).await.status, 202);
    assert_eq!(stage.demo.get("nova", &path).await.status, 404);
}

/// And to images and what is said of them.
#[tokio::test(flavor = "multi_thread")]
async fn the_old_way_to_images() {
    let stage = Stage::set().await;
    let demo = &stage.demo;
    let path = format!("/images/{}", stage.image);
    let shown = demo.show("nova", &path).await["image"].clone();
    assert_eq!((&shown["status"], &shown["OS-EXT-IMG-SIZE:size"]), (&json!("ACTIVE"), &json!(1 << 20)));
    let elsewhere = stage.cloud.identity_url().replace(":15000", ":19292") + &path;
    assert_eq!(shown["links"][2]["href"], elsewhere);
    let listed = demo.show("nova", "/images/detail?name=small&status=ACTIVE").await;
    assert_eq!(listed["images"].as_array().unwrap().len(), 1);
    let metadata = format!("{path}/metadata");
    let made = demo.make("nova", &metadata, json!({"metadata": {"a": "1", "b": "2"}})).await;
    assert_eq!(made["metadata"], json!({"a": "1", "b": "2"}));
    let set = demo.put("nova", &format!("{metadata}/a"), json!({"meta": {"a": "3"}})).await;
    assert_eq!(set.status, 200);
    let wrong = demo.put("nova", &format!("{metadata}/a"), json!({"meta": {"b": "3"}})).await;
    assert_eq!(wrong.status, 400);
    assert_eq!(demo.delete("nova", &format!("{metadata}/b")).await.status, 204);
    assert_eq!(demo.delete("nova", &format!("{metadata}/b")).await.status, 404);
    let glance = demo.show("glance", &format!("/v2/images/{}", stage.image)).await;
    assert_eq!((&glance["a"], glance.get("b")), (&json!("3"), None));
    let stranger = stage.stranger("member").await;
    for answer in [stranger.get("nova", &path).await, stranger.delete("nova", &path).await] {
        assert_eq!(answer.status, 404);
    }
    assert_eq!(demo.at("compute 2.36").get("nova", &path).await.status, 404);
    assert_eq!(demo.delete("nova", &path).await.status, 204);
    assert_eq!(demo.get("nova", &path).await.status, 404);
}
