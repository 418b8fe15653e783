//! The whole cloud answers as the reference OpenStack does: every scenario of `compat/`, a test for each service.

use compat::Mode;
use std::path::Path;
use test_cloud::TestCloud;

async fn play(service: &str, files_min: usize) {
    play_on(TestCloud::start().await, service, files_min).await;
}

async fn play_on(cloud: TestCloud, service: &str, files_min: usize) {
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
    play("glance", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neutron() {
    play("neutron", 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nova() {
    // As many as the reference has.
    play_on(TestCloud::with(&[("simulate", "hosts", "1")]).await, "nova", 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn placement() {
    play("placement", 2).await;
}
