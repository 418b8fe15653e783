//! Requests that are refused, and how: foreign projects, missing roles, wrong types, names too long, wrong states.

use crate::stage::Stage;
use serde_json::{Value, json};
use test_cloud::{Answer, Caller};

fn message(answer: &Answer) -> String {
    let body = answer.json().unwrap_or_default();
    let fault = body.as_object().and_then(|body| body.values().next()).cloned().unwrap_or_default();
    test_cloud::text(&fault["message"])
}

/// What one may do with a server that is there: method, end of the path, body.
fn deeds() -> Vec<(&'static str, &'static str, Value)> {
    let action = |body: Value| ("POST", "/action", body);
    vec![
        ("GET", "", Value::Null),
        ("PUT", "", json!({"server": {"name": "stolen"}})),
        ("GET", "/ips", Value::Null),
        ("GET", "/metadata", Value::Null),
        ("POST", "/metadata", json!({"metadata": {"a": "b"}})),
        ("GET", "/os-interface", Value::Null),
        ("POST", "/os-interface", json!({})),
        ("GET", "/os-volume_attachments", Value::Null),
        ("GET", "/os-instance-actions", Value::Null),
        ("GET", "/os-security-groups", Value::Null),
        ("GET", "/tags", Value::Null),
        ("GET", "/os-server-password", Value::Null),
        action(json!({"os-start": null})),
        action(json!({"os-stop": null})),
        action(json!({"reboot": {"type": "HARD"}})),
        action(json!({"pause": null})),
        action(json!({"suspend": null})),
        action(json!({"lock": null})),
        action(json!({"os-getConsoleOutput": {}})),
        ("DELETE", "", Value::Null),
    ]
}

async fn tries(caller: &Caller, server: &str, deed: &(&str, &str, Value)) -> Answer {
    let (method, path, body) = deed;
    let body = (!body.is_null()).then(|| body.clone());
    caller.call(method, "nova", &format!("/servers/{server}{path}"), body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_server_is_not_there() {
    let stage = Stage::set().await;
    let server = stage.running("mine", json!({})).await;
    let stranger = stage.stranger("member").await.at("compute 2.96");
    for deed in deeds() {
        let answer = tries(&stranger, &server, &deed).await;
        assert_eq!(answer.status, 404, "{} {} {}: {}", deed.0, deed.1, deed.2, message(&answer));
    }
    let listed = stranger.show("nova", "/servers").await;
    assert_eq!(listed["servers"], json!([]));
    let all = stranger.get("nova", "/servers?all_tenants=1").await;
    assert_eq!(all.status, 403, "{}", message(&all));
    let shown = stage.is(&server, "ACTIVE").await;
    assert_eq!(shown["name"], "mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_only_reads() {
    let stage = Stage::set().await;
    let server = stage.running("mine", json!({})).await;
    let reader = stage.colleague("reader").await.at("compute 2.96");
    for deed in deeds() {
        let answer = tries(&reader, &server, &deed).await;
        let wanted = if deed.0 == "GET" { 200 } else { 403 };
        assert_eq!(answer.status, wanted, "{} {} {}: {}", deed.0, deed.1, deed.2, message(&answer));
    }
    let created = reader.post("nova", "/servers", stage.server("mine")).await;
    assert_eq!(created.status, 403);
    let flavor = json!({"flavor": {"name": "f", "ram": 1, "vcpus": 1, "disk": 1}});
    assert_eq!(stage.demo.post("nova", "/flavors", flavor).await.status, 403, "the administrator's");
    assert_eq!(stage.demo.get("nova", "/os-hypervisors").await.status, 403);
    assert_eq!(stage.action(&server, json!({"os-resetState": {"state": "error"}})).await.status, 403);
    stage.is(&server, "ACTIVE").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_wrong() {
    let stage = Stage::set().await;
    let before = stage.taken().await;
    let long = "n".repeat(256);
    let nothing = "0e8a7f6c-0000-4000-8000-000000000001";
    let mut wrong = Vec::new();
    for (key, value, status, said) in [
        (
            "name",
            json!(7),
            400,
            "Invalid input for field/attribute name. Value: 7. 7 is not of type 'string'",
        ),
        ("name", json!(long), 400, "is too long"),
        ("name", json!(""), 400, "Invalid input for field/attribute name."),
        ("name", json!("a\u{0}b"), 400, "An invalid 'name' value was provided."),
        ("flavorRef", json!({}), 400, "Invalid input for field/attribute flavorRef."),
        ("flavorRef", json!(nothing), 400, &format!("Flavor {nothing} could not be found.")),
        ("imageRef", json!(nothing), 400, "Can not find requested image"),
        ("imageRef", json!(7), 400, "Invalid input for field/attribute imageRef."),
        ("networks", json!([{"uuid": nothing}]), 400, &format!("Network {nothing} could not be found.")),
        ("networks", json!([{"uuid": "moon"}]), 400, "Invalid input for field/attribute networks."),
        ("networks", json!("always"), 400, "Invalid input for field/attribute networks."),
        ("networks", json!([{"port": nothing}]), 400, &format!("Port id {nothing} could not be found.")),
        ("key_name", json!("nobody's"), 400, "Invalid key_name provided."),
        ("min_count", json!(0), 400, "Invalid input for field/attribute min_count."),
        ("max_count", json!("many"), 400, "Invalid input for field/attribute max_count."),
        ("user_data", json!("A"), 400, "Invalid input for field/attribute user_data."),
        ("user_data", json!("A".repeat(65536)), 400, "too long"),
        ("metadata", json!({"k": "v".repeat(256)}), 400, "too long"),
        ("metadata", json!({"k".repeat(256): "v"}), 400, "Invalid input for field/attribute metadata."),
        ("metadata", json!([]), 400, "Invalid input for field/attribute metadata."),
        ("tags", json!(["a,b"]), 400, "Invalid input for field/attribute"),
        ("accessIPv4", json!("nowhere"), 400, "Invalid input for field/attribute accessIPv4."),
        ("availability_zone", json!("a:b:c:d"), 400, ""),
        ("moon", json!("full"), 400, "Additional properties are not allowed ('moon' was unexpected)"),
        ("block_device_mapping_v2", json!([{"boot_index": 0, "source_type": "moon"}]), 400, ""),
        (
            "block_device_mapping_v2",
            json!([{"boot_index": 0, "source_type": "volume", "destination_type": "volume", "uuid": nothing}]),
            400,
            "",
        ),
        (
            "security_groups",
            json!([{"name": "moon"}]),
            400,
            "Unable to find security_group with name or id 'moon'",
        ),
    ] {
        let mut body = stage.server("wrong");
        body["server"][key] = value.clone();
        let answer = stage.demo.at("compute 2.96").post("nova", "/servers", body).await;
        let (value, heard) = (value.to_string(), message(&answer));
        if answer.status != status || !heard.contains(said) {
            wrong.push(format!("{key} {value:.60}: {} {heard:.200}", answer.status));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    stage.comes_to(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn states_that_do_not_allow_it() {
    let stage = Stage::set().await;
    let server = stage.running("mine", json!({})).await;
    let refused = async |action: Value, state: &str, name: &str| {
        let answer = stage.action(&server, action).await;
        let said = format!("Cannot '{name}' instance {server} while it is in vm_state {state}");
        assert_eq!((answer.status, message(&answer)), (409, said));
    };
    refused(json!({"os-start": null}), "active", "start").await;
    refused(json!({"unpause": null}), "active", "unpause").await;
    refused(json!({"resume": null}), "active", "resume").await;
    for (action, status, state, others) in [
        ("os-stop", "SHUTOFF", "stopped", ["os-stop", "pause", "suspend"]),
        ("os-start", "ACTIVE", "active", ["os-start", "unpause", "resume"]),
        ("pause", "PAUSED", "paused", ["os-stop", "pause", "suspend"]),
        ("unpause", "ACTIVE", "active", ["os-start", "unpause", "resume"]),
        ("suspend", "SUSPENDED", "suspended", ["os-stop", "pause", "suspend"]),
        ("resume", "ACTIVE", "active", ["os-start", "unpause", "resume"]),
    ] {
        assert_eq!(stage.action(&server, json!({action: null})).await.status, 202, "{action}");
        stage.is(&server, status).await;
        for other in others {
            refused(json!({other: null}), state, other.trim_start_matches("os-")).await;
        }
    }
    // Locked, it is left alone by all but administrators.
    assert_eq!(stage.action(&server, json!({"lock": null})).await.status, 202);
    let locked = format!("Instance {server} is locked");
    for body in [json!({"os-stop": null}), json!({"reboot": {"type": "HARD"}}), json!({"pause": null})] {
        let answer = stage.action(&server, body.clone()).await;
        assert_eq!((answer.status, message(&answer)), (409, locked.clone()), "{body}");
    }
    let path = format!("/servers/{server}");
    let answer = stage.demo.delete("nova", &path).await;
    assert_eq!((answer.status, message(&answer)), (409, locked));
    assert_eq!(stage.admin.delete("nova", &path).await.status, 204);
}

/// Two stops at once: one is granted, the other hears of the first; nothing hangs.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_twice_at_once() {
    let stage = Stage::set().await;
    let server = stage.running("mine", json!({})).await;
    let all =
        futures::future::join_all((0..8).map(|_| stage.action(&server, json!({"os-stop": null})))).await;
    let granted = all.iter().filter(|answer| answer.status == 202).count();
    assert!(all.iter().all(|answer| matches!(answer.status, 202 | 409)));
    assert_eq!(granted, 1);
    stage.is(&server, "SHUTOFF").await;
    let path = format!("/servers/{server}");
    let all = futures::future::join_all((0..8).map(|_| stage.demo.delete("nova", &path))).await;
    assert!(all.iter().all(|answer| matches!(answer.status, 204 | 404)));
    assert!(all.iter().any(|answer| answer.status == 204));
    test_cloud::until("gone", async || (stage.demo.get("nova", &path).await.status == 404).then_some(()))
        .await;
}
