//! The whole cloud answers as the reference OpenStack does: every scenario of `compat/`, a test for each service.

use compat::Mode;
use std::path::Path;
use test_cloud::TestCloud;

async fn play(service: &str, files_min: usize) {
    play_with(service, files_min, &[]).await;
}

/// With options that make the cloud as the reference is configured.
async fn play_with(service: &str, files_min: usize, options: &[(&str, &str, &str)]) {
    let cloud = TestCloud::with(options).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compat").join(service);
    let files = compat::files_below(&folder).unwrap();
    assert!(files.len() >= files_min, "{} scenarios in {}", files.len(), folder.display());
    let outcomes = compat::play(&cloud.credentials(), &files, Mode::Run, 4).await.unwrap();
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|outcome| outcome.failed > 0)
        .map(|outcome| format!("{}\n{}", outcome.path.display(), outcome.said.join("\n")))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn keystone() {
    play("keystone", 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cinder() {
    play("cinder", 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn glance() {
    // The reference has no metadata definitions of its own that fill the first page.
    play_with("glance", 2, &[("glance", "limit_param_default", "1000")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neutron() {
    let many = [
        "quota_network",
        "quota_subnet",
        "quota_port",
        "quota_router",
        "quota_security_group",
        "quota_security_group_rule",
    ];
    play_with("neutron", 13, &many.map(|name| ("neutron", name, "100000"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nova() {
    // As many as the reference has.
    play_with("nova", 8, &[("simulate", "hosts", "1")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn placement() {
    play("placement", 2).await;
}
