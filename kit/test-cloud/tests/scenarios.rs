//! The whole cloud answers as the reference OpenStack does: every scenario of `compat/`, a test for each service.

use compat::Mode;
use std::path::Path;
use test_cloud::TestCloud;

async fn play(service: &str, files_min: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compat");
    let cloud = TestCloud::with_file(&folder.join("ferrostack.toml")).await;
    let folder = folder.join(service);
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
async fn cinder() {
    play("cinder", 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn glance() {
    play("glance", 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keystone() {
    play("keystone", 19).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neutron() {
    play("neutron", 15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nova() {
    play("nova", 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn placement() {
    play("placement", 8).await;
}
