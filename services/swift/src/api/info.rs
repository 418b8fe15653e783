//! What swift says of itself to everybody.

use crate::{Swift, answer::Answer};
use base::Result;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, StatusCode};

pub async fn healthcheck(_: Arc<Swift>, _: Request) -> Result<Reply> {
    Ok(Answer::with(StatusCode::OK, "text/plain", "OK").into_reply())
}

/// A path that ends where accounts begin.
pub async fn nowhere(_: Arc<Swift>, _: Request) -> Result<Reply> {
    Ok(Answer::with(StatusCode::PRECONDITION_FAILED, web::swob::HTML, "Bad URL").into_reply())
}

/// For Flash and its kin.
pub async fn crossdomain(_: Arc<Swift>, _: Request) -> Result<Reply> {
    const POLICY: &str = "<?xml version=\"1.0\"?>\n<!DOCTYPE cross-domain-policy SYSTEM \"http://www.adobe.com/xml/dtds/cross-domain-policy.dtd\" >\n<cross-domain-policy>\n<allow-access-from domain=\"*\" secure=\"false\" />\n</cross-domain-policy>";
    Ok(Answer::with(StatusCode::OK, "application/xml", POLICY).into_reply())
}

/// What there is, and its limits.
pub async fn info(swift: Arc<Swift>, _: Request) -> Result<Reply> {
    let o = &swift.options;
    let body = json!({
        "swift": {
            "version": "2.37.0",
            "strict_cors_mode": true,
            "policies": [{"name": "Policy-0", "aliases": "Policy-0", "default": true}],
            "allow_account_management": o.allow_account_management,
            "account_autocreate": true,
            "allow_open_expired": false,
            "max_file_size": o.max_file_size,
            "max_meta_name_length": o.max_meta_name_length,
            "max_meta_value_length": o.max_meta_value_length,
            "max_meta_count": o.max_meta_count,
            "max_meta_overall_size": o.max_meta_overall_size,
            "max_header_size": o.max_header_size,
            "max_object_name_length": o.max_object_name_length,
            "container_listing_limit": o.container_listing_limit,
            "account_listing_limit": o.account_listing_limit,
            "max_account_name_length": o.max_account_name_length,
            "max_container_name_length": o.max_container_name_length,
            "valid_api_versions": ["v1", "v1.0"],
            "extra_header_count": 0,
        },
        "account_quotas": {},
        "bulk_delete": {"max_deletes_per_request": o.max_deletes_per_request, "max_failed_deletes": o.max_deletes_per_request},
        "bulk_upload": {
            "max_containers_per_extraction": o.max_containers_per_extraction,
            "max_failed_extractions": o.max_failed_extractions,
        },
        "container_quotas": {},
        "crossdomain": {},
        "formpost": {"allowed_digests": o.allowed_digests, "deprecated_digests": ["sha1"]},
        "object_versioning": {},
        "slo": {
            "max_manifest_segments": o.max_manifest_segments,
            "max_manifest_size": o.max_manifest_bytes,
            "min_segment_size": 1,
            "allow_async_delete": false,
        },
        "staticweb": {},
        "symlink": {"symloop_max": o.symloop_max, "static_links": true},
        "tempurl": {
            "methods": o.tempurl_methods,
            "incoming_remove_headers": ["x-timestamp"],
            "incoming_allow_headers": [],
            "outgoing_remove_headers": ["x-object-meta-*"],
            "outgoing_allow_headers": ["x-object-meta-public-*"],
            "allowed_digests": o.allowed_digests,
            "deprecated_digests": ["sha1"],
        },
        "versioned_writes": {"allowed_flags": ["x-versions-location", "x-history-location"]},
    });
    Ok(Answer::json(&body).into_reply())
}
