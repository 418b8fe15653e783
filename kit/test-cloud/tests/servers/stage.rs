//! What the stories of servers play on: a cloud with an image, a flavor, a network, and the people who use them.

use serde_json::{Value, json};
use test_cloud::{Answer, Caller, TestCloud, until};

/// What servers are made of, and the people who make them.
pub struct Stage {
    pub cloud: TestCloud,
    pub admin: Caller,
    pub demo: Caller,
    pub image: String,
    pub flavor: String,
    pub network: String,
}

impl Stage {
    pub async fn set() -> Self {
        Self::with(&[]).await
    }

    pub async fn with(options: &[(&str, &str, &str)]) -> Self {
        Self::on(TestCloud::with(options).await).await
    }

    pub async fn on(cloud: TestCloud) -> Self {
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

    pub fn server(&self, name: &str) -> Value {
        let (image, flavor, network) = (&self.image, &self.flavor, &self.network);
        json!({"server": {"name": name, "imageRef": image, "flavorRef": flavor, "networks": [{"uuid": network}]}})
    }

    pub async fn create(&self, name: &str) -> String {
        id(&self.demo.make("nova", "/servers", self.server(name)).await["server"])
    }

    pub async fn servers(&self) -> Vec<Value> {
        let shown = self.demo.show("nova", "/servers/detail").await;
        shown["servers"].as_array().unwrap().clone()
    }

    pub async fn ports(&self) -> Vec<String> {
        let shown = self.admin.show("neutron", "/v2.0/ports").await;
        let mut ids: Vec<String> = shown["ports"].as_array().unwrap().iter().map(id).collect();
        ids.sort();
        ids
    }

    pub async fn is(&self, server: &str, status: &str) -> Value {
        until(&format!("{server} {status}"), async || {
            let shown = self.demo.show("nova", &format!("/servers/{server}")).await["server"].clone();
            assert!(shown["status"] != "ERROR" || status == "ERROR", "{}", shown["fault"]);
            (shown["status"] == status && shown["OS-EXT-STS:task_state"].is_null()).then_some(shown)
        })
        .await
    }

    /// Every operation has come to its end; the statuses, and what went wrong.
    pub async fn settled(&self) -> Vec<String> {
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
    pub async fn taken(&self) -> Value {
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

    pub async fn delete_all(&self) {
        for server in self.servers().await {
            self.demo.delete("nova", &format!("/servers/{}", id(&server))).await;
        }
        until("no server", async || self.servers().await.is_empty().then_some(())).await;
    }

    /// Somebody else in a project of his own.
    pub async fn stranger(&self, role: &str) -> Caller {
        let make = async |path: &str, body: Value| self.admin.make("keystone", path, body).await;
        let name = format!("other-{role}");
        let project = id(&make("/projects", json!({"project": {"name": name}})).await["project"]);
        let user = json!({"user": {"name": name, "password": "secret", "default_project_id": project}});
        let user = id(&make("/users", user).await["user"]);
        self.grant(&user, &project, role).await;
        Caller::sign_in(&self.cloud.identity_url(), &name, "secret", &name).await
    }

    /// Somebody else with a role in the project of all stories.
    pub async fn colleague(&self, role: &str) -> Caller {
        let user = json!({"user": {"name": role, "password": "secret"}});
        let user = id(&self.admin.make("keystone", "/users", user).await["user"]);
        self.grant(&user, &self.demo.project_id, role).await;
        Caller::sign_in(&self.cloud.identity_url(), role, "secret", "demo").await
    }

    async fn grant(&self, user: &str, project: &str, role: &str) {
        let roles = self.admin.show("keystone", &format!("/roles?name={role}")).await;
        let path = format!("/projects/{project}/users/{user}/roles/{}", id(&roles["roles"][0]));
        assert_eq!(self.admin.call("PUT", "keystone", &path, None).await.status, 204);
    }

    /// A new server of the demo user that runs, with more in its body.
    pub async fn running(&self, name: &str, more: Value) -> String {
        let server = self.create_with(name, more).await;
        self.is(&server, "ACTIVE").await;
        server
    }

    pub async fn create_with(&self, name: &str, more: Value) -> String {
        let mut body = self.server(name);
        for (key, value) in more.as_object().into_iter().flatten() {
            match key.as_str() {
                "os:scheduler_hints" => body[key] = value.clone(),
                _ => body["server"][key] = value.clone(),
            }
        }
        id(&self.demo.make("nova", "/servers", body).await["server"])
    }

    /// The host a server is on, as the administrator sees it.
    pub async fn host_of(&self, server: &str) -> String {
        let shown = self.admin.show("nova", &format!("/servers/{server}")).await;
        test_cloud::text(&shown["server"]["OS-EXT-SRV-ATTR:host"])
    }

    pub async fn action(&self, server: &str, action: Value) -> Answer {
        self.demo.post("nova", &format!("/servers/{server}/action"), action).await
    }

    pub async fn volume(&self, wanted: Value) -> String {
        let volume = id(&self.demo.make("cinder", "/volumes", json!({"volume": wanted})).await["volume"]);
        self.volume_is(&volume, "available").await;
        volume
    }

    pub async fn volume_is(&self, volume: &str, status: &str) -> Value {
        until(&format!("volume {volume} {status}"), async || {
            let shown = self.demo.show("cinder", &format!("/volumes/{volume}")).await["volume"].clone();
            (shown["status"] == status).then_some(shown)
        })
        .await
    }

    pub async fn comes_to(&self, taken: &Value) {
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

pub fn id(noun: &Value) -> String {
    noun["id"].as_str().unwrap_or_else(|| panic!("no id in {noun}")).to_string()
}
