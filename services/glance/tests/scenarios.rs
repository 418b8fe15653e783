//! Images answer as in the reference OpenStack: every scenario of `compat/glance`, over real sockets.

use base::{Clock, Secret};
use compat::{Credentials, Mode};
use glance::{Glance, Options};
use keystone::{Bootstrap, EndpointUrls, Keystone};
use std::{future::pending, path::Path};
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread")]
async fn scenarios() {
    let directory = tempfile::tempdir().unwrap();
    let (identity_port, own_port) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
    let (identity_url, own_url) = (url(&identity_port), url(&own_port));

    let identity_db = db::testing::sqlite(keystone::TABLES, &[]).await.unwrap();
    let options = keystone::Options { password_hash_rounds: 4, ..Default::default() };
    let keystone = Keystone::new(identity_db.db.clone(), Clock::real(), options, directory.path()).unwrap();
    let endpoint = |kind: &str, name: &str, url: &str| EndpointUrls {
        service_type: kind.into(),
        service_name: name.into(),
        public: url.into(),
        internal: url.into(),
        admin: url.into(),
    };
    let endpoints = vec![
        endpoint("identity", "keystone", &format!("{identity_url}/v3")),
        endpoint("image", "glance", &own_url),
    ];
    let (admin_password, region) = (Secret::new("secret"), "RegionOne".into());
    keystone.bootstrap(Bootstrap { admin_password, region, endpoints, members: Vec::new() }).await.unwrap();
    let router = keystone.service(None, &identity_url).unwrap().into_router().unwrap();
    tokio::spawn(web::serve(identity_port, router, pending()));

    let database = db::testing::sqlite(glance::TABLES, &[]).await.unwrap();
    let images = directory.path().join("images");
    let glance = Glance::new(database.db.clone(), Clock::real(), Options::default(), &images).unwrap();
    glance.start().await.unwrap();
    let router = glance.service(None, keystone, &identity_url).unwrap().into_router().unwrap();
    tokio::spawn(web::serve(own_port, router, pending()));

    let credentials = Credentials {
        auth_url: identity_url,
        username: "admin".into(),
        password: "secret".into(),
        project_name: "admin".into(),
        user_domain: "default".into(),
        project_domain: "default".into(),
        region: None,
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compat/glance");
    let files = compat::files_below(&folder).unwrap();
    let outcomes = compat::play(&credentials, &files, Mode::Run, 4).await.unwrap();
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|outcome| outcome.failed > 0)
        .map(|outcome| format!("{}\n{}", outcome.path.display(), outcome.said.join("\n")))
        .collect();
    assert!(files.len() >= 2 && failed.is_empty(), "{}", failed.join("\n"));
}
