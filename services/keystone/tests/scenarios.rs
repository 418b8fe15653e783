//! Identity answers as the reference OpenStack does: every scenario of `compat/keystone`, over a real socket.

mod cloud;

use base::{Clock, Secret};
use compat::{Credentials, Mode};
use keystone::{Bootstrap, EndpointUrls, Keystone, Options};
use std::path::Path;

#[tokio::test(flavor = "multi_thread")]
async fn scenarios() {
    let directory = tempfile::tempdir().unwrap();
    let database = cloud::database().await;
    let options = Options { password_hash_rounds: 4, ..Options::default() };
    let keystone = Keystone::new(database.db.clone(), Clock::real(), options, directory.path()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let identity = EndpointUrls {
        service_type: "identity".into(),
        service_name: "keystone".into(),
        public: format!("{url}/v3"),
        internal: format!("{url}/v3"),
        admin: format!("{url}/v3"),
    };
    let (admin_password, region) = (Secret::new("secret"), "RegionOne".into());
    keystone
        .bootstrap(Bootstrap { admin_password, region, endpoints: vec![identity], members: Vec::new() })
        .await
        .unwrap();
    let router = keystone.service(None, &url).unwrap().into_router().unwrap();
    let server = tokio::spawn(web::serve(listener, router, std::future::pending()));

    let credentials = Credentials {
        auth_url: url,
        username: "admin".into(),
        password: "secret".into(),
        project_name: "admin".into(),
        user_domain: "default".into(),
        project_domain: "default".into(),
        region: None,
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compat/keystone");
    let files = compat::files_below(&folder).unwrap();
    let outcomes = compat::play(&credentials, &files, Mode::Run, 4).await.unwrap();
    server.abort();
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|outcome| outcome.failed > 0)
        .map(|outcome| format!("{}\n{}", outcome.path.display(), outcome.said.join("\n")))
        .collect();
    assert!(files.len() >= 8 && failed.is_empty(), "{}", failed.join("\n"));
}
