//! Images in a real Ceph cluster: as disks of a pool, and as objects of its Swift service. `scripts/ceph` starts one.

use compat::Answer;
use serde_json::{Value, json};
use std::{io::Write, process::Command};
use test_cloud::{Caller, TestCloud, text, until};

fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is said by scripts/test-ceph"))
}

/// What Ceph's own tool says; `Err` how it fails.
fn rbd(words: &[&str]) -> Result<String, String> {
    let output = Command::new("rbd").args(["--conf", &given("FERROSTACK_TEST_CEPH")]).args(words).output();
    let output = output.unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
}

/// A cloud whose images go to `store` unless somebody asks for `file`.
async fn cloud(store: &str) -> TestCloud {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(
        file,
        "[glance]\ndefault_store = \"there\"\nshow_multiple_locations = true\n\
         [[glance.stores]]\nid = \"file\"\n[[glance.stores]]\nid = \"there\"\nweight = 5\n{store}"
    )
    .unwrap();
    TestCloud::with_file(file.path()).await
}

async fn image(caller: &Caller, bytes: Vec<u8>) -> String {
    let body = json!({"name": "i", "disk_format": "raw", "container_format": "bare"});
    let id = text(&caller.make("glance", "/v2/images", body).await["id"]);
    caller.upload(&id, bytes).await;
    id
}

async fn shown(caller: &Caller, id: &str) -> Value {
    caller.show("glance", &format!("/v2/images/{id}")).await
}

async fn part(caller: &Caller, id: &str, range: &str) -> Answer {
    let headers = [("x-auth-token", caller.token.as_str()), ("range", range)];
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_string()));
    let url = format!("{}/v2/images/{id}/file", caller.url_of("glance"));
    compat::send("GET", &url, &headers, Vec::new()).await.unwrap()
}

async fn copied_to_file(admin: &Caller, id: &str) {
    let body = json!({"method": {"name": "copy-image"}, "stores": ["file"]});
    let answer = admin.post("glance", &format!("/v2/images/{id}/import"), body).await;
    assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
    until("copied", async || (shown(admin, id).await["stores"] == "there,file").then_some(())).await;
}

/// 12 MiB, of which most is zero.
fn sparse() -> Vec<u8> {
    let mut bytes = vec![0; 12 << 20];
    bytes[..5].copy_from_slice(b"begin");
    let end = bytes.len() - 3;
    bytes[end..].copy_from_slice(b"end");
    bytes
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Ceph cluster: make test-ceph"]
async fn images_are_disks_of_a_pool() {
    let conf = given("FERROSTACK_TEST_CEPH");
    let cloud = cloud(&format!("kind = \"rbd\"\npool = \"images\"\nceph_conf = \"{conf}\"")).await;
    let (admin, demo) = (cloud.admin().await, cloud.demo().await);
    let id = image(&demo, sparse()).await;
    let disk = format!("images/{id}");

    let cluster: Value = serde_json::from_str(&rbd(&["info", "--format", "json", &disk]).unwrap()).unwrap();
    assert_eq!((&cluster["size"], &cluster["object_size"]), (&json!(12 << 20), &json!(8 << 20)));
    let snapshots: Value =
        serde_json::from_str(&rbd(&["snap", "ls", "--format", "json", &disk]).unwrap()).unwrap();
    assert_eq!((&snapshots[0]["name"], &snapshots[0]["protected"]), (&json!("snap"), &json!("true")));
    let image = shown(&demo, &id).await;
    let url = text(&image["direct_url"]);
    assert!(url.starts_with("rbd://") && url.ends_with(&format!("/images/{id}/snap")), "{url}");

    let all = demo.get("glance", &format!("/v2/images/{id}/file")).await;
    assert!(all.status == 200 && all.body == sparse());
    let end = part(&demo, &id, "bytes=12582908-").await;
    assert_eq!((end.status, end.body.as_slice()), (206, b"\0end".as_slice()));
    copied_to_file(&admin, &id).await;

    // Somebody's volume is a clone of it.
    let clone = format!("images/clone-{id}");
    rbd(&["clone", &format!("{disk}@snap"), &clone]).unwrap();
    let path = format!("/v2/images/{id}");
    let refused = demo.delete("glance", &path).await;
    let said = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(refused.status == 409 && said.contains("in use through the backend store"), "{said}");
    assert_eq!(shown(&demo, &id).await["status"], "active");
    let all = demo.get("glance", &format!("{path}/file")).await;
    assert!(all.status == 200 && all.body == sparse());
    rbd(&["rm", "--no-progress", &clone]).unwrap();
    assert_eq!(demo.delete("glance", &path).await.status, 204);
    assert!(rbd(&["info", &disk]).unwrap_err().contains("No such file"));

    // Bytes that are not what they are said to be leave nothing.
    let body = json!({"name": "i", "disk_format": "qcow2", "container_format": "bare"});
    let id = text(&demo.make("glance", "/v2/images", body).await["id"]);
    let headers = [("x-auth-token", demo.token.as_str()), ("content-type", "application/octet-stream")];
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_string()));
    let file = format!("{}/v2/images/{id}/file", demo.url_of("glance"));
    let answer = compat::send("PUT", &file, &headers, b"no qcow2".to_vec()).await.unwrap();
    assert_eq!(answer.status, 415);
    assert!(rbd(&["info", &format!("images/{id}")]).is_err());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Ceph cluster: make test-ceph"]
async fn a_pool_that_is_not_there() {
    let conf = given("FERROSTACK_TEST_CEPH");
    let cloud = cloud(&format!("kind = \"rbd\"\npool = \"nowhere\"\nceph_conf = \"{conf}\"")).await;
    let demo = cloud.demo().await;
    let body = json!({"name": "i", "disk_format": "raw", "container_format": "bare"});
    let id = text(&demo.make("glance", "/v2/images", body).await["id"]);
    let headers = [("x-auth-token", demo.token.as_str()), ("content-type", "application/octet-stream")];
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_string()));
    let file = format!("{}/v2/images/{id}/file", demo.url_of("glance"));
    assert_eq!(compat::send("PUT", &file, &headers, b"bytes".to_vec()).await.unwrap().status, 500);
    assert_eq!(shown(&demo, &id).await["status"], "queued");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Swift service: make test-ceph"]
async fn images_are_objects_of_a_swift_service() {
    let auth = given("FERROSTACK_TEST_SWIFT");
    let store = |key: &str| {
        format!(
            "kind = \"swift\"\nurl = \"{auth}\"\nauth_version = \"1\"\nuser = \"test:tester\"\nsecret_key = \"{key}\"\n\
             container = \"pictures\"\ncreate_container = true\nlarge_object_mib = 4\nsegment_mib = 5"
        )
    };
    let one = cloud(&store("testing")).await;
    let (admin, demo) = (one.admin().await, one.demo().await);
    let (large, small) = (sparse(), b"a small image".to_vec());
    for bytes in [small, large] {
        let id = image(&demo, bytes.clone()).await;
        let all = demo.get("glance", &format!("/v2/images/{id}/file")).await;
        assert!(all.status == 200 && all.body == bytes);
        let few = part(&demo, &id, "bytes=2-6").await;
        assert_eq!((few.status, few.body.as_slice()), (206, &bytes[2..7]));
        let end = part(&demo, &id, "bytes=-4").await;
        assert_eq!((end.status, end.body.as_slice()), (206, &bytes[bytes.len() - 4..]));
        let image = shown(&demo, &id).await;
        assert_eq!(image["direct_url"], format!("swift+config://there/pictures/{id}"));
        copied_to_file(&admin, &id).await;
        assert_eq!(objects(&auth, &id).await, if bytes.len() < (4 << 20) { 1 } else { 4 });
        assert_eq!(admin.delete("glance", &format!("/v2/stores/there/{id}")).await.status, 204);
        assert_eq!(objects(&auth, &id).await, 0);
        assert_eq!(demo.delete("glance", &format!("/v2/images/{id}")).await.status, 204);
    }
    // With another key nobody gets in.
    let two = cloud(&store("wrong")).await;
    let demo = two.demo().await;
    let body = json!({"name": "i", "disk_format": "raw", "container_format": "bare"});
    let id = text(&demo.make("glance", "/v2/images", body).await["id"]);
    let headers = [("x-auth-token", demo.token.as_str()), ("content-type", "application/octet-stream")];
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_string()));
    let file = format!("{}/v2/images/{id}/file", demo.url_of("glance"));
    assert_eq!(compat::send("PUT", &file, &headers, b"bytes".to_vec()).await.unwrap().status, 503);
    assert_eq!(shown(&demo, &id).await["status"], "queued");
}

/// How many objects there are of an image, segments and all, as the service itself says.
async fn objects(auth: &str, id: &str) -> usize {
    let who = [("x-auth-user", "test:tester"), ("x-auth-key", "testing")];
    let who = who.map(|(name, value)| (name.to_string(), value.to_string()));
    let signed_in = compat::send("GET", auth, &who, Vec::new()).await.unwrap();
    let header = |name: &str| signed_in.header(name).unwrap_or_default().to_string();
    let url = format!("{}/pictures?format=json&prefix={id}", header("x-storage-url"));
    let token = [("x-auth-token".to_string(), header("x-auth-token"))];
    let listed = compat::send("GET", &url, &token, Vec::new()).await.unwrap();
    listed.json().unwrap().as_array().unwrap().len()
}
