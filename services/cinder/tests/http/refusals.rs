//! Every write path with what it must refuse.

use crate::cloud::{Cloud, IMAGE, NOBODY, OTHER};
use base::Json;
use serde_json::json;

/// Who, what, the status, and a part of what is said.
type Refusal = (&'static str, &'static str, String, Json, u16, &'static str);

#[tokio::test(flavor = "multi_thread")]
async fn refusals() {
    let cloud = Cloud::new().await;
    let free = cloud.volume(json!({"size": 2})).await;
    let used = cloud.volume(json!({"size": 1})).await;
    let attachment = cloud.attached(&used).await;
    let snapshot = cloud.post("/v3/snapshots", json!({"snapshot": {"volume_id": free}})).await;
    let snapshot = snapshot.body["snapshot"]["id"].as_str().unwrap().to_string();
    cloud.cinder.settled().await;
    let other: &'static str = Box::leak(format!("member@{OTHER}").into_boxed_str());
    let volume = format!("/v3/volumes/{free}");
    let action = format!("{volume}/action");
    let in_use = format!("/v3/volumes/{used}/action");
    let metadata = format!("{volume}/metadata");
    let long = "x".repeat(256);
    let create = |body: Json| json!({"volume": body});
    let cases: Vec<Refusal> = vec![
        // create
        ("norole", "POST", "/v3/volumes".into(), create(json!({"size": 1})), 403, "volume:create"),
        (
            "reader",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 1, "imageRef": IMAGE})),
            403,
            "volume:create_from_image",
        ),
        ("member", "POST", "/v3/volumes".into(), json!([]), 400, "[] is not of type 'object'"),
        ("member", "POST", "/v3/volumes".into(), create(json!("x")), 400, "'x' is not of type 'object'"),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": -1})),
            400,
            "-1 is less than the minimum of 1",
        ),
        ("member", "POST", "/v3/volumes".into(), create(json!({"size": 1.5})), 400, "not of type"),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 1, "description": long})),
            400,
            "description has 256 characters",
        ),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 1, "metadata": {"a": 1}})),
            400,
            "1 is not of type 'string'",
        ),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 1, "metadata": {"": "x"}})),
            400,
            "does not match any of the regexes",
        ),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 1, "snapshot_id": "x"})),
            400,
            "not valid under any of the given schemas",
        ),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 1, "snapshot_id": snapshot})),
            400,
            "cannot be smaller than the snapshot size 2GB",
        ),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 1, "source_volid": free})),
            400,
            "cannot be smaller than original volume size",
        ),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 2, "source_volid": free, "snapshot_id": snapshot})),
            400,
            "May specify only one of",
        ),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 1, "multiattach": true})),
            400,
            "multiattach parameter has been removed",
        ),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 1, "group_id": NOBODY})),
            404,
            "Group",
        ),
        (
            "member",
            "POST",
            "/v3/volumes".into(),
            create(json!({"size": 1, "backup_id": NOBODY})),
            404,
            "Backup",
        ),
        (other, "POST", "/v3/volumes".into(), create(json!({"source_volid": free})), 404, "Volume"),
        (other, "POST", "/v3/volumes".into(), create(json!({"snapshot_id": snapshot})), 404, "Snapshot"),
        // update and delete
        ("reader", "PUT", volume.clone(), create(json!({"name": "x"})), 403, "volume:update"),
        (other, "PUT", volume.clone(), create(json!({"name": "x"})), 404, "could not be found"),
        ("member", "PUT", volume.clone(), create(json!({"name": long})), 400, "name has 256 characters"),
        ("member", "PUT", volume.clone(), create(json!({"size": 7})), 400, "Additional properties"),
        ("reader", "DELETE", volume.clone(), Json::Null, 403, "volume:delete"),
        ("member", "DELETE", volume.clone(), Json::Null, 400, "have snapshots"),
        ("member", "DELETE", format!("{volume}?force=true"), Json::Null, 403, "volume:force_delete"),
        ("member", "DELETE", format!("{volume}?cascade=maybe"), Json::Null, 400, "maybe"),
        // metadata
        ("reader", "POST", metadata.clone(), json!({"metadata": {}}), 403, "volume:create_volume_metadata"),
        (other, "PUT", metadata.clone(), json!({"metadata": {}}), 404, "Volume"),
        (
            "member",
            "PUT",
            metadata.clone(),
            json!({"metadata": {"a": null}}),
            400,
            "None is not of type 'string'",
        ),
        ("member", "PUT", metadata.clone(), json!({"metadata": {"a": long}}), 400, "is too long"),
        (
            "member",
            "PUT",
            format!("{metadata}/a"),
            json!({"meta": {"b": "c"}}),
            400,
            "Request body and URI mismatch",
        ),
        (
            "member",
            "PUT",
            format!("{metadata}/a"),
            json!({"meta": {"a": "b", "c": "d"}}),
            400,
            "too many properties",
        ),
        ("member", "DELETE", format!("{metadata}/a"), Json::Null, 404, "no metadata with key a"),
        // actions
        ("reader", "POST", action.clone(), json!({"os-extend": {"new_size": 4}}), 403, "volume:extend"),
        (other, "POST", action.clone(), json!({"os-extend": {"new_size": 4}}), 404, "Volume"),
        (
            "member",
            "POST",
            action.clone(),
            json!({"os-extend": {"new_size": 2}}),
            400,
            "must be greater than current size",
        ),
        (
            "member",
            "POST",
            action.clone(),
            json!({"os-extend": {}}),
            400,
            "'new_size' is a required property",
        ),
        (
            "member",
            "POST",
            action.clone(),
            json!({"os-set_bootable": {"bootable": "perhaps"}}),
            400,
            "is not one of",
        ),
        (
            "reader",
            "POST",
            action.clone(),
            json!({"os-set_bootable": {"bootable": true}}),
            403,
            "volume:update",
        ),
        (
            "member",
            "POST",
            in_use.clone(),
            json!({"os-update_readonly_flag": {"readonly": true}}),
            400,
            "must be available to update readonly flag",
        ),
        ("member", "POST", action.clone(), json!({"os-retype": {"new_type": "nothing"}}), 404, "nothing"),
        (
            "member",
            "POST",
            action.clone(),
            json!({"os-retype": {"new_type": "__DEFAULT__"}}),
            400,
            "has to be different",
        ),
        ("member", "POST", action.clone(), json!({"os-begin_detaching": {}}), 400, "must be 'in-use'"),
        ("member", "POST", in_use.clone(), json!({"os-reserve": {}}), 400, "must be available to reserve"),
        (
            "member",
            "POST",
            in_use.clone(),
            json!({"os-attach": {"mountpoint": "/dev/vdc", "instance_uuid": NOBODY}}),
            400,
            "already attached",
        ),
        (
            "member",
            "POST",
            in_use.clone(),
            json!({"os-attach": {"mountpoint": "/dev/vdc"}}),
            400,
            "not valid under any of the given schemas",
        ),
        (
            "member",
            "POST",
            in_use.clone(),
            json!({"os-detach": {"attachment_id": NOBODY}}),
            400,
            "VolumeAttachmentNotFound",
        ),
        ("member", "POST", in_use.clone(), json!({"os-force_detach": {}}), 403, "force_detach"),
        (
            "admin",
            "POST",
            action.clone(),
            json!({"os-reset_status": {"status": "flying"}}),
            400,
            "is invalid",
        ),
        ("admin", "POST", action.clone(), json!({"os-reset_status": {}}), 400, "Must specify"),
        (
            "admin",
            "POST",
            action.clone(),
            json!({"os-reset_status": {"status": "in-use"}}),
            400,
            "does not have any attachments",
        ),
        (
            "member",
            "POST",
            action.clone(),
            json!({"revert": {"snapshot_id": NOBODY}}),
            400,
            "not the latest one",
        ),
        (
            "member",
            "POST",
            in_use.clone(),
            json!({"revert": {"snapshot_id": NOBODY}}),
            400,
            "doesn't have any snapshots",
        ),
        (
            "member",
            "POST",
            action.clone(),
            json!({"os-unset_image_metadata": {"key": "x"}}),
            404,
            "Metadata item was not found",
        ),
        (
            "member",
            "POST",
            action.clone(),
            json!({"os-initialize_connection": {"connector": {}}}),
            400,
            "host",
        ),
        (
            "member",
            "POST",
            action.clone(),
            json!({"os-juggle": {"host": "x"}}),
            400,
            "There is no such action",
        ),
        // attachments
        (
            other,
            "POST",
            "/v3/attachments".into(),
            json!({"attachment": {"volume_uuid": free}}),
            404,
            "Volume",
        ),
        (
            "member",
            "POST",
            "/v3/attachments".into(),
            json!({"attachment": {"volume_uuid": 7}}),
            400,
            "not of type",
        ),
        (
            "member",
            "POST",
            "/v3/attachments".into(),
            json!({"attachment": {"volume_uuid": free, "mode": "w"}}),
            400,
            "is not one of",
        ),
        (
            "member",
            "PUT",
            format!("/v3/attachments/{attachment}"),
            json!({"attachment": {"connector": {}}}),
            400,
            "should be non-empty",
        ),
        (
            "reader",
            "PUT",
            format!("/v3/attachments/{attachment}"),
            json!({"attachment": {"connector": {"host": "h1"}}}),
            403,
            "attachment_update",
        ),
        (other, "DELETE", format!("/v3/attachments/{attachment}"), Json::Null, 404, "attachment_id"),
        // snapshots
        (other, "DELETE", format!("/v3/snapshots/{snapshot}"), Json::Null, 404, "Snapshot"),
        ("reader", "DELETE", format!("/v3/snapshots/{snapshot}"), Json::Null, 403, "delete_snapshot"),
        (
            "member",
            "PUT",
            format!("/v3/snapshots/{snapshot}"),
            json!({"snapshot": {}}),
            400,
            "not valid under any",
        ),
        (
            "member",
            "POST",
            format!("/v3/snapshots/{snapshot}/action"),
            json!({"os-reset_status": {"status": "error"}}),
            403,
            "reset_status",
        ),
        (
            "admin",
            "POST",
            format!("/v3/snapshots/{snapshot}/action"),
            json!({"os-reset_status": {"status": "flying"}}),
            400,
            "is invalid",
        ),
        (
            "member",
            "POST",
            format!("/v3/snapshots/{snapshot}/action"),
            json!({"os-update_snapshot_status": {"status": "error"}}),
            400,
            "not allowed",
        ),
        // lists
        ("member", "GET", "/v3/volumes?limit=-1".into(), Json::Null, 400, "limit param must be positive"),
        ("member", "GET", "/v3/volumes?offset=x".into(), Json::Null, 400, "offset must be an integer"),
        ("member", "GET", "/v3/volumes?sort=name:up".into(), Json::Null, 400, "Unknown sort direction"),
        ("member", "GET", "/v3/volumes?sort=name&sort_key=id".into(), Json::Null, 400, "deprecated"),
        ("member", "GET", "/v3/volumes?colour=red".into(), Json::Null, 400, "Invalid filters colour"),
        ("member", "GET", "/v3/volumes?bootable=perhaps".into(), Json::Null, 400, "bootable"),
        ("member", "GET", "/v3/volumes?created_at=after:x".into(), Json::Null, 400, "Invalid after operator"),
        ("norole", "GET", "/v3/volumes".into(), Json::Null, 403, "volume:get_all"),
    ];
    for (who, method, path, body, status, said) in cases {
        let body = Some(body).filter(|body| !body.is_null());
        let answer = cloud.call(who, method, &path, body.clone()).await;
        assert_eq!(answer.status, status, "{who} {method} {path} {body:?}: {}", answer.body);
        assert!(
            answer.message().contains(said),
            "{method} {path} {body:?}: {} lacks {said:?}",
            answer.message()
        );
    }
    assert_eq!(cloud.status(&free).await, "available", "nothing of it changed anything");
    assert_eq!(cloud.fake.volumes().len(), 2);
}
