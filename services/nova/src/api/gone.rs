//! Paths that upstream once had: for ever gone ones, and proxies of other services that were there until 2.35 and
//! that we do not have.

use crate::Nova;
use base::{Error, Result};
use std::sync::Arc;
use web::{Mark, Reply, Request, Routes, delete, get, post, put};

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

const UNTIL_2_35: &[&str] = &["/v2.1/os-baremetal-nodes", "/v2.1/os-baremetal-nodes/{id}"];

pub fn routes() -> Routes<Nova> {
    let gone = GONE.iter().flat_map(|path| {
        [get(path, "", is_gone), post(path, "", is_gone), put(path, "", is_gone), delete(path, "", is_gone)]
            .map(|route| route.marks(&[Mark::Gone]))
    });
    let absent = UNTIL_2_35.iter().flat_map(|path| {
        let all = [get(path, "", is_absent), post(path, "", is_absent), delete(path, "", is_absent)];
        all.map(|route| route.until(2, 35).marks(&[Mark::Gone]))
    });
    gone.chain(absent).collect()
}

async fn is_gone(_: Arc<Nova>, _: Request) -> Result<Reply> {
    Err(Error::gone("This resource is no longer available. No forwarding address is given."))
}

async fn is_absent(_: Arc<Nova>, _: Request) -> Result<Reply> {
    Err(Error::not_implemented("The requested functionality is not supported."))
}
