//! Stories of servers: booted with a network and a volume, many at once, interrupted; nothing of them may be left.

use futures::future::join_all;
use serde_json::{Value, json};
use test_cloud::{Caller, TestCloud, until};

/// What servers are made of, and the people who make them.
struct Stage {
    cloud: TestCloud,
    admin: Caller,
    demo: Caller,
    image: String,
    flavor: String,
    network: String,
}

impl Stage {
    async fn set() -> Self {
        let cloud = TestCloud::start().await;
        let (admin, demo) = (cloud.admin().await, cloud.demo().await);
        let image = json!({"name": "small", "disk_format": "raw", "container_format": "bare"});
        let image = id(&demo.make("glance", "/v2/images", image).await);
        demo.upload(&image, vec![0; 1 << 20]).await;
        let flavor = json!({"flavor": {"name": "test", "ram": 64, "vcpus": 1, "disk": 1}});
        let flavor = id(&admin.make("nova", "/flavors", flavor).await["flavor"]);
        let network = demo.make("neutron", "/v2.0/networks", json!({"network": {"name": "mine"}})).await;
        let network = id(&network["network"]);
        let subnet = json!({"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24"}});
        demo.make("neutron", "/v2.0/subnets", subnet).await;
        let stage = Self { cloud, admin, demo, image, flavor, network };
        // The DHCP server has a port as soon as its host knows of the network.
        until("the DHCP port", async || (!stage.ports().await.is_empty()).then_some(())).await;
        stage
    }

    fn server(&self, name: &str) -> Value {
        let (image, flavor, network) = (&self.image, &self.flavor, &self.network);
        json!({"server": {"name": name, "imageRef": image, "flavorRef": flavor, "networks": [{"uuid": network}]}})
    }

    async fn create(&self, name: &str) -> String {
        id(&self.demo.make("nova", "/servers", self.server(name)).await["server"])
    }

    async fn servers(&self) -> Vec<Value> {
        let shown = self.demo.show("nova", "/servers/detail").await;
        shown["servers"].as_array().unwrap().clone()
    }

    async fn ports(&self) -> Vec<String> {
        let shown = self.admin.show("neutron", "/v2.0/ports").await;
        let mut ids: Vec<String> = shown["ports"].as_array().unwrap().iter().map(id).collect();
        ids.sort();
        ids
    }

    async fn is(&self, server: &str, status: &str) -> Value {
        until(&format!("{server} {status}"), async || {
            let shown = self.demo.show("nova", &format!("/servers/{server}")).await["server"].clone();
            assert!(shown["status"] != "ERROR" || status == "ERROR", "{}", shown["fault"]);
            (shown["status"] == status && shown["OS-EXT-STS:task_state"].is_null()).then_some(shown)
        })
        .await
    }

    /// Every operation has come to its end; the statuses, and what went wrong.
    async fn settled(&self) -> Vec<String> {
        until("the end of every operation", async || {
            let all = self.servers().await;
            let status = |server: &Value| server["status"].as_str().unwrap().to_string();
            let ended = |server: &Value| {
                ["ACTIVE", "ERROR", "SHUTOFF"].contains(&&*status(server))
                    && server["OS-EXT-STS:task_state"].is_null()
            };
            let said = |server: &Value| match server["fault"]["message"].as_str() {
                Some(fault) => format!("{}: {fault}", status(server)),
                None => status(server),
            };
            all.iter().all(ended).then(|| all.iter().map(said).collect())
        })
        .await
    }

    /// Everything that servers take, as it is accounted for.
    async fn taken(&self) -> Value {
        let mut usages = Vec::new();
        let providers = self.admin.show("placement", "/resource_providers").await;
        for provider in providers["resource_providers"].as_array().unwrap() {
            let path = format!("/resource_providers/{}/usages", provider["uuid"].as_str().unwrap());
            usages.push(self.admin.show("placement", &path).await["usages"].clone());
        }
        let limits = self.demo.show("nova", "/limits").await["limits"]["absolute"].clone();
        let volumes = self.demo.show("cinder", "/limits").await["limits"]["absolute"].clone();
        let attachments = self.demo.at("volume 3.27").show("cinder", "/attachments").await;
        json!({
            "usages": usages,
            "quota": [limits["totalInstancesUsed"], limits["totalCoresUsed"], limits["totalRAMUsed"]],
            "volumes": [volumes["totalVolumesUsed"], volumes["totalGigabytesUsed"]],
            "attachments": attachments["attachments"],
            "ports": self.ports().await,
        })
    }

    async fn delete_all(&self) {
        for server in self.servers().await {
            self.demo.delete("nova", &format!("/servers/{}", id(&server))).await;
        }
        until("no server", async || self.servers().await.is_empty().then_some(())).await;
    }

    async fn comes_to(&self, taken: &Value) {
        let mut last = Value::Null;
        for _ in 0..500 {
            last = self.taken().await;
            if last == *taken {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(&last, taken, "something is left over");
    }
}

fn id(noun: &Value) -> String {
    noun["id"].as_str().unwrap_or_else(|| panic!("no id in {noun}")).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn booted_given_a_volume_and_deleted() {
    let stage = Stage::set().await;
    let before = stage.taken().await;
    let server = stage.create("mine").await;
    let shown = stage.is(&server, "ACTIVE").await;
    assert_eq!(shown["addresses"]["mine"].as_array().unwrap().len(), 1, "{}", shown["addresses"]);
    let volume = json!({"volume": {"name": "data", "size": 1}});
    let volume = id(&stage.demo.make("cinder", "/volumes", volume).await["volume"]);
    let path = format!("/volumes/{volume}");
    let status = async |wanted: &str| {
        until(&format!("the volume {wanted}"), async || {
            (stage.demo.show("cinder", &path).await["volume"]["status"] == wanted).then_some(())
        })
        .await;
    };
    status("available").await;
    let attachments = format!("/servers/{server}/os-volume_attachments");
    let body = json!({"volumeAttachment": {"volumeId": volume}});
    stage.demo.make("nova", &attachments, body).await;
    status("in-use").await;
    let refused = stage.demo.delete("cinder", &path).await;
    assert_eq!(refused.status, 400, "a volume in use is not deleted");
    assert_eq!(stage.demo.delete("nova", &format!("{attachments}/{volume}")).await.status, 202);
    status("available").await;
    for (action, wanted) in [("os-stop", "SHUTOFF"), ("os-start", "ACTIVE")] {
        let answer =
            stage.demo.post("nova", &format!("/servers/{server}/action"), json!({action: null})).await;
        assert_eq!(answer.status, 202, "{action}");
        stage.is(&server, wanted).await;
    }
    assert_ne!(stage.taken().await, before);
    stage.delete_all().await;
    assert_eq!(stage.demo.delete("cinder", &path).await.status, 202);
    stage.comes_to(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_against_a_quota_of_ten_are_exactly_ten() {
    let stage = Stage::set().await;
    let before = stage.taken().await;
    let answers = join_all((0..100).map(|_| stage.demo.post("nova", "/servers", stage.server("many")))).await;
    let made = answers.iter().filter(|answer| answer.status == 202).count();
    let refused = answers.iter().filter(|answer| answer.status == 403).count();
    assert_eq!((made, refused), (10, 90));
    assert_eq!(stage.settled().await, vec!["ACTIVE"; 10]);
    stage.delete_all().await;
    stage.comes_to(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_interrupts_ends_after_it() {
    let mut stage = Stage::set().await;
    let before = stage.taken().await;
    for round in 0..6 {
        let names: Vec<String> = (0..8).map(|number| format!("round-{round}-{number}")).collect();
        let ids = join_all(names.iter().map(|name| stage.create(name))).await;
        // Some rounds crash among boots alone, some among deletes of what runs, some among both.
        if round % 3 == 1 {
            stage.settled().await;
        }
        let going = if round % 3 == 0 { &ids[..0] } else { &ids[..4] };
        let paths: Vec<String> = going.iter().map(|id| format!("/servers/{id}")).collect();
        for answer in join_all(paths.iter().map(|path| stage.demo.delete("nova", path))).await {
            assert_eq!(answer.status, 204);
        }
        stage.cloud.crash().await;
        stage.cloud.start_again().await;
        let statuses = stage.settled().await;
        for path in &paths {
            until(&format!("{path} gone"), async || {
                (stage.demo.get("nova", path).await.status == 404).then_some(())
            })
            .await;
        }
        assert!(statuses.len() >= ids.len() - going.len(), "{statuses:?}");
        assert!(!statuses.iter().any(|status| status.starts_with("ERROR")), "{statuses:#?}");
        stage.delete_all().await;
        stage.comes_to(&before).await;
    }
}
