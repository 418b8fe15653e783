//! Servers that are resized, go to other hosts, are put away and rescued, and what is made of their disks.

use crate::stage::{Stage, id};
use serde_json::{Value, json};
use test_cloud::{text, until};

impl Stage {
    async fn does(&self, server: &str, action: Value, status: &str) -> Value {
        let answer = self.admin.at("compute 2.96").post("nova", &path(server), action.clone()).await;
        let said = String::from_utf8_lossy(&answer.body);
        assert!((200..300).contains(&answer.status), "{action}: {} {said}", answer.status);
        self.is(server, status).await
    }

    async fn refuses(&self, server: &str, action: Value, status: u16) {
        let answer = self.admin.at("compute 2.96").post("nova", &path(server), action.clone()).await;
        assert_eq!(answer.status, status, "{action}: {}", String::from_utf8_lossy(&answer.body));
    }

    async fn larger(&self) -> String {
        let flavor = json!({"flavor": {"name": "larger", "ram": 128, "vcpus": 2, "disk": 2}});
        id(&self.admin.make("nova", "/flavors", flavor).await["flavor"])
    }

    /// The newest moves first: their kind and how they ended.
    async fn moves(&self) -> Vec<(String, String)> {
        let shown = self.admin.at("compute 2.96").show("nova", "/os-migrations").await;
        let all = shown["migrations"].as_array().unwrap().iter();
        all.map(|one| (text(&one["migration_type"]), text(&one["status"]))).collect()
    }

    async fn image_is(&self, image: &str, status: &str) -> Value {
        until(&format!("image {image} {status}"), async || {
            let shown = self.admin.show("glance", &format!("/v2/images/{image}")).await;
            (shown["status"] == status).then_some(shown)
        })
        .await
    }
}

fn path(server: &str) -> String {
    format!("/servers/{server}/action")
}

#[tokio::test(flavor = "multi_thread")]
async fn resized_and_back_resized_and_stays() {
    let stage = Stage::set().await;
    let before = stage.taken().await;
    let (server, larger) = (stage.running("mine", json!({})).await, stage.larger().await);
    let volume = stage.volume(json!({"name": "data", "size": 1})).await;
    let body = json!({"volumeAttachment": {"volumeId": volume}});
    stage.demo.make("nova", &format!("/servers/{server}/os-volume_attachments"), body).await;
    stage.volume_is(&volume, "in-use").await;
    let (small, from) = (stage.taken().await, stage.host_of(&server).await);
    stage.refuses(&server, json!({"resize": {"flavorRef": stage.flavor}}), 400).await;
    stage.refuses(&server, json!({"confirmResize": null}), 409).await;
    stage.does(&server, json!({"resize": {"flavorRef": larger}}), "VERIFY_RESIZE").await;
    assert_ne!(stage.host_of(&server).await, from, "another host has more room");
    stage.does(&server, json!({"revertResize": null}), "ACTIVE").await;
    assert_eq!(stage.host_of(&server).await, from);
    stage.comes_to(&small_with(&small, &stage.taken().await)).await;
    let shown = stage.does(&server, json!({"resize": {"flavorRef": larger}}), "VERIFY_RESIZE").await;
    assert_eq!(shown["flavor"]["id"], larger);
    stage.does(&server, json!({"confirmResize": null}), "ACTIVE").await;
    let outcomes = stage.moves().await;
    let moved = |status: &str| ("resize".to_string(), status.to_string());
    assert_eq!(outcomes, [moved("confirmed"), moved("reverted")]);
    stage.volume_is(&volume, "in-use").await;
    stage.delete_all().await;
    stage.volume_is(&volume, "available").await;
    assert_eq!(stage.demo.delete("cinder", &format!("/volumes/{volume}")).await.status, 202);
    stage.comes_to(&before).await;
}

/// Attachments have other ids after a move; all else is as it was.
fn small_with(small: &Value, now: &Value) -> Value {
    let mut expected = small.clone();
    expected["attachments"] = now["attachments"].clone();
    expected
}

#[tokio::test(flavor = "multi_thread")]
async fn to_another_host_off_and_running_and_away_from_one_that_is_down() {
    let stage = Stage::set().await;
    let before = stage.taken().await;
    let server = stage.running("mine", json!({})).await;
    let first = stage.host_of(&server).await;
    stage.refuses(&server, json!({"migrate": {"host": first}}), 400).await;
    stage.refuses(&server, json!({"migrate": {"host": "moon"}}), 400).await;
    stage.does(&server, json!({"migrate": {"host": "simulated-3"}}), "VERIFY_RESIZE").await;
    stage.does(&server, json!({"confirmResize": null}), "ACTIVE").await;
    assert_eq!(stage.host_of(&server).await, "simulated-3");
    let live = |host: Value| json!({"os-migrateLive": {"host": host, "block_migration": "auto"}});
    stage.does(&server, live(json!("simulated-2")), "ACTIVE").await;
    assert_eq!(stage.host_of(&server).await, "simulated-2");
    let port =
        stage.demo.show("neutron", &format!("/v2.0/ports?device_id={server}")).await["ports"][0].clone();
    let port = stage.admin.show("neutron", &format!("/v2.0/ports/{}", id(&port))).await;
    assert_eq!(port["port"]["binding:host_id"], "simulated-2");
    stage.refuses(&server, json!({"evacuate": {}}), 400).await;
    let services = stage.admin.at("compute 2.96").show("nova", "/os-services?host=simulated-2").await;
    let service = format!("/os-services/{}", id(&services["services"][0]));
    let admin = stage.admin.at("compute 2.96");
    let uptime = async || {
        let path = "/os-hypervisors?hypervisor_hostname_pattern=simulated-2";
        let found = admin.show("nova", path).await;
        let shown = admin.show("nova", &format!("/os-hypervisors/{}", id(&found["hypervisors"][0]))).await;
        shown["hypervisor"]["uptime"].clone()
    };
    assert!(uptime().await.as_str().is_some_and(|said| said.contains("load average")));
    assert_eq!(admin.put("nova", &service, json!({"forced_down": true})).await.status, 200);
    assert_eq!(uptime().await, Value::Null, "nobody asks a host that is down");
    stage.does(&server, json!({"evacuate": {"host": "simulated-4"}}), "SHUTOFF").await;
    assert_eq!(stage.host_of(&server).await, "simulated-4");
    assert_eq!(admin.put("nova", &service, json!({"forced_down": false})).await.status, 200);
    let kinds: Vec<String> =
        stage.moves().await.into_iter().map(|(kind, status)| kind + " " + &status).collect();
    assert_eq!(kinds, ["evacuation done", "live-migration completed", "migration confirmed"]);
    stage.delete_all().await;
    stage.comes_to(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn put_away_and_brought_back_and_rescued() {
    let stage = Stage::set().await;
    let before = stage.taken().await;
    let server = stage.running("mine", json!({})).await;
    let fresh = stage.taken().await;
    stage.refuses(&server, json!({"unshelve": null}), 409).await;
    let shelved = stage.does(&server, json!({"shelve": null}), "SHELVED_OFFLOADED").await;
    assert_eq!(shelved["addresses"]["mine"].as_array().unwrap().len(), 1, "it keeps its address");
    assert_eq!(stage.host_of(&server).await, "");
    assert_eq!(stage.taken().await["usages"], before["usages"], "it takes nothing of any host");
    stage.refuses(&server, json!({"os-start": null}), 409).await;
    stage.refuses(&server, json!({"unshelve": {"host": "moon"}}), 400).await;
    // On no host it takes volumes in name, and gives them back.
    let demo = stage.demo.at("compute 2.96");
    let attachments = format!("/servers/{server}/os-volume_attachments");
    let (kept, returned) = (stage.volume(json!({"size": 1})).await, stage.volume(json!({"size": 1})).await);
    for volume in [&kept, &returned] {
        let wanted = json!({"volumeAttachment": {"volumeId": volume}});
        demo.make("nova", &attachments, wanted).await;
        let shown = stage.volume_is(volume, "in-use").await;
        assert_eq!(shown["attachments"][0]["server_id"], server);
    }
    assert_eq!(demo.delete("nova", &format!("{attachments}/{returned}")).await.status, 202);
    stage.volume_is(&returned, "available").await;
    stage.does(&server, json!({"unshelve": {"host": "simulated-2"}}), "ACTIVE").await;
    assert_eq!(stage.host_of(&server).await, "simulated-2");
    assert_eq!(stage.taken().await["ports"], fresh["ports"]);
    let shown = stage.admin.show("cinder", &format!("/volumes/{kept}")).await;
    assert_eq!(shown["volume"]["attachments"][0]["host_name"], "simulated-2");
    assert_eq!(demo.delete("nova", &format!("{attachments}/{kept}")).await.status, 202);
    stage.volume_is(&kept, "available").await;
    for volume in [&kept, &returned] {
        assert_eq!(stage.demo.delete("cinder", &format!("/volumes/{volume}")).await.status, 202);
    }
    until("the shelved image gone", async || {
        let images = stage.admin.show("glance", "/v2/images?name=mine-shelved").await;
        images["images"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    let rescue = json!({"rescue": {"rescue_image_ref": stage.image}});
    stage.does(&server, rescue.clone(), "RESCUE").await;
    stage.refuses(&server, rescue, 409).await;
    stage.does(&server, json!({"unrescue": null}), "ACTIVE").await;
    stage.delete_all().await;
    stage.comes_to(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_of_disks_boots_again() {
    let stage = Stage::set().await;
    let server = stage.running("mine", json!({})).await;
    let demo = stage.demo.at("compute 2.96");
    let make = async |server: &str, action: Value| {
        let made = text(&demo.make("nova", &path(server), action).await["image_id"]);
        stage.is(server, "ACTIVE").await;
        made
    };
    let shot = make(&server, json!({"createImage": {"name": "shot", "metadata": {"kept": "yes"}}})).await;
    let image = stage.image_is(&shot, "active").await;
    assert_eq!((&image["kept"], &image["base_image_ref"]), (&json!("yes"), &json!(stage.image)));
    assert_eq!((&image["image_type"], &image["instance_uuid"]), (&json!("snapshot"), &json!(server)));
    stage.running("again", json!({"imageRef": shot})).await;
    let mut backups = Vec::new();
    for number in 0..3 {
        let body =
            json!({"createBackup": {"name": format!("b{number}"), "backup_type": "daily", "rotation": 2}});
        backups.push(make(&server, body).await);
    }
    let kept = demo.show("glance", "/v2/images?image_type=backup&sort=created_at:asc").await;
    let kept: Vec<String> = kept["images"].as_array().unwrap().iter().map(id).collect();
    assert_eq!(kept, backups[1..], "the oldest went");

    let from_volume = json!({"block_device_mapping_v2": [{
        "boot_index": 0, "uuid": stage.image, "source_type": "image", "destination_type": "volume",
        "volume_size": 1, "delete_on_termination": true,
    }], "imageRef": ""});
    let of_volume = stage.running("of-volume", from_volume).await;
    let shot = make(&of_volume, json!({"createImage": {"name": "shot of a volume"}})).await;
    let image = stage.image_is(&shot, "active").await;
    let mapping: Value = serde_json::from_str(image["block_device_mapping"].as_str().unwrap()).unwrap();
    let snapshot = text(&mapping[0]["snapshot_id"]);
    until("the snapshot", async || {
        let shown = stage.demo.show("cinder", &format!("/snapshots/{snapshot}")).await;
        (shown["snapshot"]["status"] == "available").then_some(())
    })
    .await;
    let again = stage.running("of-volume-again", json!({"imageRef": shot})).await;
    let shown = demo.show("nova", &format!("/servers/{again}/os-volume_attachments")).await;
    assert_eq!(shown["volumeAttachments"].as_array().unwrap().len(), 1, "{shown}");
    stage.delete_all().await;
}
