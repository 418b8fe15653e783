//! Images that become volumes, volumes that become images.

use crate::cloud::{Cloud, IMAGE};
use futures::future::join_all;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn an_image_becomes_a_bootable_volume_with_what_it_says_of_itself() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(json!({"size": 3, "imageRef": IMAGE})).await;
    let volume = cloud.get(&format!("/v3/volumes/{id}")).await["volume"].clone();
    assert_eq!(volume["bootable"], "true");
    assert_eq!(volume["volume_image_metadata"]["image_id"], IMAGE);
    assert_eq!(volume["volume_image_metadata"]["hw_disk_bus"], "virtio");
    let small = cloud.post("/v3/volumes", json!({"volume": {"size": 1, "imageRef": IMAGE}})).await;
    assert_eq!(small.status, 400);
    assert_eq!(
        small.message(),
        "Invalid input received: Size of specified image 2GB is larger than volume size 1GB."
    );
    // A copy of it boots, too.
    let copy = cloud.volume(json!({"source_volid": id})).await;
    let copy = cloud.get(&format!("/v3/volumes/{copy}")).await["volume"].clone();
    assert_eq!((&copy["bootable"], &copy["size"]), (&json!("true"), &json!(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_becomes_an_image() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(json!({"size": 1, "imageRef": null, "name": "v"})).await;
    let path = format!("/v3/volumes/{id}/action");
    let wanted = json!({"os-volume_upload_image": {"image_name": "i", "protected": true}});
    let asked = join_all((0..2).map(|_| cloud.post(&path, wanted.clone()))).await;
    let mut statuses: Vec<u16> = asked.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 400], "one of two at once");
    let refused = asked.iter().find(|answer| answer.status == 400).unwrap();
    assert_eq!(refused.message(), format!("Invalid volume: Volume {id} status must be available"));
    let shown = &asked.iter().find(|answer| answer.status == 202).unwrap().body["os-volume_upload_image"];
    assert_eq!((&shown["status"], &shown["disk_format"]), (&json!("uploading"), &json!("raw")));
    cloud.cinder.settled().await;
    assert_eq!(cloud.status(&id).await, "available");
    let made = cloud.images.made.lock().clone();
    let (image, bytes) = &made[shown["image_id"].as_str().unwrap()];
    assert_eq!((image.name.as_str(), image.protected, *bytes), ("i", true, Some(1 << 30)));
    // What fails leaves no image.
    let other = json!({"os-volume_upload_image": {"image_name": "j", "disk_format": "qcow2"}});
    cloud.post(&path, other).await;
    cloud.cinder.settled().await;
    assert_eq!((cloud.status(&id).await.as_str(), cloud.images.made.lock().len()), ("available", 1));
    for (token, body, status) in [
        ("reader", wanted.clone(), 403),
        ("member@0e8a7f6c000040008000000000000002", wanted.clone(), 404),
        ("member", json!({"os-volume_upload_image": {"image_name": "i", "visibility": "public"}}), 403),
        ("member", json!({"os-volume_upload_image": {"image_name": ""}}), 400),
        ("member", json!({"os-volume_upload_image": {"image_name": "i", "disk_format": "tar"}}), 400),
        ("member", json!({"os-volume_upload_image": {"image_name": "i", "x": 1}}), 400),
        ("member", json!({"os-volume_upload_image": {"image_name": 5}}), 400),
    ] {
        let answer = cloud.call(token, "POST", &path, Some(body.clone())).await;
        assert_eq!(answer.status, status, "{token} {body}: {}", answer.body);
    }
    // A volume that a server has, only where the operator lets it.
    cloud.attached(&id).await;
    let forced = json!({"os-volume_upload_image": {"image_name": "i", "force": true}});
    assert_eq!(cloud.post(&path, forced).await.status, 400);
}
