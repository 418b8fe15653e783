//! The way to a server's screen: a token and the address of the proxy that takes it.

use super::checked;
use crate::{Nova, console, model::Instance, schemas::Form};
use base::{Error, Json, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, action, get, post};

pub fn routes() -> Routes<Nova> {
    const RULE: &str = "os_compute_api:os-remote-consoles";
    const ACTION: &str = "/v2.1/servers/{server_id}/action";
    vec![
        post("/v2.1/servers/{server_id}/remote-consoles", RULE, create).since(2, 6),
        action(ACTION, "os-getVNCConsole", RULE, vnc).until(2, 5),
        action(ACTION, "os-getSPICEConsole", RULE, spice).until(2, 5),
        action(ACTION, "os-getSerialConsole", RULE, serial).until(2, 5),
        action(ACTION, "os-getRDPConsole", RULE, rdp).until(2, 5),
        get("/v2.1/os-console-auth-tokens/{token}", "os_compute_api:os-console-auth-tokens", show_token),
    ]
}

async fn create(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &CREATE)?["remote_console"].clone();
    let instance = nova.server(&request).await?;
    let text = |key: &str| given[key].as_str().unwrap_or_default().to_string();
    let (protocol, kind) = (text("protocol"), text("type"));
    if protocol == "rdp" {
        return Err(unavailable(&protocol));
    }
    if protocol != "vnc" {
        return Err(unavailable(&kind));
    }
    let url = nova.vnc_url(&request, &instance, &kind).await?;
    Ok(Reply::ok(json!({"remote_console": {"protocol": protocol, "type": kind, "url": url}})))
}

async fn vnc(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let kind = checked(&request, &VNC)?["os-getVNCConsole"]["type"].as_str().unwrap_or_default().to_string();
    let instance = nova.server(&request).await?;
    let url = nova.vnc_url(&request, &instance, &kind).await?;
    Ok(Reply::ok(json!({"console": {"type": kind, "url": url}})))
}

async fn spice(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    checked(&request, &SPICE)?;
    nova.server(&request).await?;
    Err(unavailable("spice-html5"))
}

async fn serial(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    checked(&request, &SERIAL)?;
    nova.server(&request).await?;
    Err(unavailable("serial"))
}

async fn rdp(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    nova.server(&request).await?;
    Err(malformed())
}

async fn show_token(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    if !request.since(2, 31) {
        return Err(malformed());
    }
    request.can(&())?;
    let found = console::valid(&nova, request.param("token")).await?;
    let token = found.ok_or_else(|| Error::not_found("Token not found"))?;
    Ok(Reply::ok(json!({"console": {
        "instance_uuid": token.instance_uuid, "host": token.host, "port": token.port,
        "internal_access_path": null,
    }})))
}

fn unavailable(kind: &str) -> Error {
    Error::bad_request(format!("Unavailable console type {kind}."))
}

fn malformed() -> Error {
    Error::bad_request(
        "The server could not comply with the request since it is either malformed or otherwise incorrect.",
    )
}

impl Nova {
    /// Where the server's screen is to be seen for a while.
    async fn vnc_url(&self, request: &Request, instance: &Instance, kind: &str) -> Result<String> {
        let Some(host) = &instance.host else {
            return Err(Error::conflict(format!("Instance {} is not ready", instance.uuid)));
        };
        if kind != "novnc" {
            return Err(unavailable(kind));
        }
        let address = self.compute(host).console(&request.ctx, &instance.uuid).await?;
        console::grant(self, &instance.uuid, kind, &address).await
    }
}

fn of_type(key: &str, types: &[&str]) -> Json {
    json!({
        "type": "object",
        "properties": {key: {
            "type": "object",
            "properties": {"type": {"type": "string", "enum": types}},
            "required": ["type"],
            "additionalProperties": false,
        }},
        "required": [key],
        "additionalProperties": false,
    })
}

static VNC: Form = Form::new(|| of_type("os-getVNCConsole", &["novnc", "xvpvnc"]));
static SPICE: Form = Form::new(|| of_type("os-getSPICEConsole", &["spice-html5"]));
static SERIAL: Form = Form::new(|| of_type("os-getSerialConsole", &["serial"]));

static CREATE: Form = Form::new(|| {
    const PROTOCOLS: [&str; 5] = ["vnc", "spice", "serial", "rdp", "mks"];
    const TYPES: [&str; 7] =
        ["novnc", "xvpvnc", "spice-html5", "serial", "rdp-html5", "webmks", "spice-direct"];
    let words = |words: &[&str], since: &str| json!({"type": "string", "enum": words, "x-since": since});
    let until = |version: &str, mut form: Json| {
        form["x-until"] = version.into();
        form
    };
    json!({
        "type": "object",
        "properties": {"remote_console": {
            "type": "object",
            "properties": {
                "protocol": [until("2.7", words(&PROTOCOLS[..4], "2.6")), words(&PROTOCOLS, "2.8")],
                "type": [
                    until("2.7", words(&TYPES[..5], "2.6")),
                    until("2.98", words(&TYPES[..6], "2.8")),
                    words(&TYPES, "2.99"),
                ],
            },
            "required": ["protocol", "type"],
            "additionalProperties": false,
        }},
        "required": ["remote_console"],
        "additionalProperties": false,
    })
});
