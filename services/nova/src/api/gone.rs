//! Paths that upstream once had: for ever gone ones, and proxies of other services that were there until 2.35 and
//! that we do not have.

use crate::Nova;
use base::{Error, Result};
use std::sync::Arc;
use web::{Mark, Reply, Request, Routes, action, delete, get, post, put};

const GONE: &[&str] = &[
    "/v2.1/os-agents",
    "/v2.1/os-agents/{id}",
    "/v2.1/os-cells",
    "/v2.1/os-cells/capacities",
    "/v2.1/os-cells/detail",
    "/v2.1/os-cells/info",
    "/v2.1/os-cells/sync_instances",
    "/v2.1/os-cells/{id}",
    "/v2.1/os-cells/{id}/capacities",
    "/v2.1/os-certificates/{id}",
    "/v2.1/os-cloudpipe",
    "/v2.1/os-cloudpipe/{id}",
    "/v2.1/os-fixed-ips/{id}",
    "/v2.1/os-floating-ip-dns",
    "/v2.1/os-floating-ip-dns/{id}",
    "/v2.1/os-floating-ips-bulk",
    "/v2.1/os-floating-ips-bulk/{id}",
    "/v2.1/os-fping",
    "/v2.1/os-fping/{id}",
    "/v2.1/os-security-group-default-rules",
    "/v2.1/os-security-group-default-rules/{id}",
];

pub fn routes() -> Routes<Nova> {
    let gone = GONE.iter().flat_map(|path| {
        [get(path, "", is_gone), post(path, "", is_gone), put(path, "", is_gone), delete(path, "", is_gone)]
            .map(|route| route.marks(&[Mark::Gone]))
    });
    const NODES: &str = "/v2.1/os-baremetal-nodes";
    const NODE: &str = "/v2.1/os-baremetal-nodes/{id}";
    const NODE_ACTION: &str = "/v2.1/os-baremetal-nodes/{id}/action";
    let bare_metal = [
        get(NODES, "", is_absent),
        get(NODE, "", is_absent),
        post(NODES, "", async |_, _| ironics("node-create")),
        delete(NODE, "", async |_, _| ironics("node-delete")),
        action(NODE_ACTION, "add_interface", "", async |_, _| ironics("port-create")),
        action(NODE_ACTION, "remove_interface", "", async |_, _| ironics("port-delete")),
    ]
    .map(|route| route.until(2, 35).marks(&[Mark::Gone]));
    let acts = [action("/v2.1/servers/{server_id}/action", "resetNetwork", "", is_gone).marks(&[Mark::Gone])];
    gone.chain(bare_metal).chain(acts).collect()
}

async fn is_gone(_: Arc<Nova>, _: Request) -> Result<Reply> {
    Err(Error::gone("This resource is no longer available. No forwarding address is given."))
}

fn ironics(command: &str) -> Result<Reply> {
    Err(Error::bad_request(format!(
        "Command not supported. Please use Ironic command {command} to perform this action."
    )))
}

async fn is_absent(_: Arc<Nova>, _: Request) -> Result<Reply> {
    Err(Error::not_implemented("The requested functionality is not supported."))
}
