//! What guests and their owners see of each other: the metadata service, the config drive, screens and consoles.

use crate::stage::Stage;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use test_cloud::Answer;

impl Stage {
    fn metadata_url(&self) -> String {
        self.cloud.identity_url().replace(":15000", ":18775")
    }

    /// As the proxy in the tenant's network asks for the guest.
    async fn metadata(&self, path: &str, server: &str, project: &str, secret: &str) -> Answer {
        self.metadata_call("GET", path, server, project, secret, &[]).await
    }

    async fn metadata_call(
        &self,
        method: &str,
        path: &str,
        server: &str,
        project: &str,
        secret: &str,
        body: &[u8],
    ) -> Answer {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(server.as_bytes());
        let signature = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let headers = [
            ("x-instance-id".to_string(), server.to_string()),
            ("x-tenant-id".to_string(), project.to_string()),
            ("x-instance-id-signature".to_string(), signature),
        ];
        let url = format!("{}{path}", self.metadata_url());
        compat::send(method, &url, &headers, body.to_vec()).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_leaves_its_password_once() {
    let stage = Stage::set().await;
    let server = stage.running("mine", json!({})).await;
    let secret = stage.cloud.cloud().secrets.metadata.expose().to_string();
    let call = async |method: &str, body: &[u8]| {
        let path = "/openstack/2013-10-17/password";
        stage.metadata_call(method, path, &server, &stage.demo.project_id, &secret, body).await
    };
    let path = format!("/servers/{server}/os-server-password");
    let shown = async || stage.demo.show("nova", &path).await["password"].clone();
    assert_eq!(shown().await, "");
    assert_eq!(call("POST", &[b'x'; 1021]).await.status, 400, "too large");
    assert_eq!(call("POST", b"sealed").await.status, 200);
    assert_eq!((shown().await, &*call("GET", b"").await.body), (json!("sealed"), &b"sealed"[..]));
    assert_eq!(call("POST", b"other").await.status, 409, "it is there");
    assert_eq!(stage.demo.delete("nova", &path).await.status, 204);
    assert_eq!(shown().await, "");
    assert_eq!(call("POST", b"other").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_reads_what_is_its_own() {
    let stage = Stage::set().await;
    let pair = stage.demo.make("nova", "/os-keypairs", json!({"keypair": {"name": "mine"}})).await;
    let public_key = test_cloud::text(&pair["keypair"]["public_key"]);
    let more = json!({
        "key_name": "mine", "metadata": {"role": "web"}, "user_data": "IyEvYmluL3NoCg==", "config_drive": true,
    });
    let server = stage.running("web 1", more).await;
    let secret = stage.cloud.cloud().secrets.metadata.expose().to_string();
    let project = &stage.demo.project_id;
    let get = async |path: &str| stage.metadata(path, &server, project, &secret).await;

    for version in ["latest", "2012-08-10", "2018-08-27"] {
        let about = get(&format!("/openstack/{version}/meta_data.json")).await;
        assert_eq!(about.status, 200, "{version}");
        let about: Value = about.json().unwrap();
        assert_eq!(about["uuid"], server);
        assert_eq!((&about["hostname"], &about["meta"]["role"]), (&json!("web-1.novalocal"), &json!("web")));
        assert_eq!(about["public_keys"]["mine"].as_str().unwrap().trim(), public_key.trim());
    }
    assert_eq!(get("/openstack/latest/user_data").await.body, b"#!/bin/sh\n");
    let network = get("/openstack/latest/network_data.json").await.json().unwrap();
    let ports = stage.demo.show("neutron", &format!("/v2.0/ports?device_id={server}")).await;
    assert_eq!(network["links"][0]["ethernet_mac_address"], ports["ports"][0]["mac_address"]);
    let text = async |path: &str| String::from_utf8(get(path).await.body).unwrap();
    assert_eq!(text("/latest/meta-data/hostname").await, "web-1.novalocal");
    let address = &ports["ports"][0]["fixed_ips"][0]["ip_address"];
    assert_eq!(text("/latest/meta-data/local-ipv4").await, address.as_str().unwrap());
    assert_eq!(text("/2009-04-04/user-data").await, "#!/bin/sh\n");
    assert_eq!(get("/openstack/latest/moon").await.status, 404);
    let shown = stage.demo.show("nova", &format!("/servers/{server}")).await;
    assert_eq!(shown["server"]["config_drive"], "True");

    let path = "/openstack/latest/meta_data.json";
    let forged = stage.metadata(path, &server, project, "guessed").await;
    assert_eq!(forged.status, 403, "a signature with another secret");
    let foreign = stage.metadata(path, &server, "0123456789abcdef0123456789abcdef", &secret).await;
    assert_eq!(foreign.status, 404, "another project's");
    let nobody = "0e8a7f6c-0000-4000-8000-000000000001";
    assert_eq!(stage.metadata(path, nobody, project, &secret).await.status, 404);
    let unsigned = compat::send("GET", &format!("{}{path}", stage.metadata_url()), &[], Vec::new()).await;
    assert_eq!(unsigned.unwrap().status, 400);
    stage.delete_all().await;
    assert_eq!(get(path).await.status, 404, "it is deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn screens_and_consoles() {
    let stage = Stage::set().await;
    let server = stage.running("mine", json!({})).await;
    let log = stage.action(&server, json!({"os-getConsoleOutput": {}})).await;
    assert!(log.json().unwrap()["output"].as_str().unwrap().contains("login: "));
    let path = format!("/servers/{server}/remote-consoles");
    let body = json!({"remote_console": {"protocol": "vnc", "type": "novnc"}});
    let demo = stage.demo.at("compute 2.96");
    let console = demo.make("nova", &path, body.clone()).await["remote_console"].clone();
    let url = console["url"].as_str().unwrap();
    let (base, token) = url.split_once("?path=%3Ftoken%3D").unwrap_or_else(|| panic!("{url}"));
    assert_eq!(base, stage.cloud.identity_url().replace(":15000", ":16080/vnc_lite.html"));
    let shown =
        stage.admin.at("compute 2.31").show("nova", &format!("/os-console-auth-tokens/{token}")).await;
    assert_eq!(shown["console"]["instance_uuid"], server);
    let refused = demo.get("nova", &format!("/os-console-auth-tokens/{token}")).await;
    assert_eq!(refused.status, 403);
    let unknown = stage.admin.at("compute 2.31").get("nova", "/os-console-auth-tokens/guessed").await;
    assert_eq!(unknown.status, 404);
    let stranger = stage.stranger("member").await.at("compute 2.96");
    assert_eq!(stranger.post("nova", &path, body.clone()).await.status, 404);
    let reader = stage.colleague("reader").await.at("compute 2.96");
    assert_eq!(reader.post("nova", &path, body.clone()).await.status, 403);
    let spice = json!({"remote_console": {"protocol": "spice", "type": "spice-html5"}});
    assert_eq!(demo.post("nova", &path, spice).await.status, 400);
    assert_eq!(stage.action(&server, json!({"os-stop": null})).await.status, 202);
    stage.is(&server, "SHUTOFF").await;
    assert_eq!(demo.post("nova", &path, body).await.status, 409, "a screen that is off");
}
