//! What a crash leaves is gone after the next start, and nothing else is.

use crate::cloud::{Cloud, clouds};
use db::testing::prepare_all;
use swift::{Options, TABLES};

#[tokio::test]
async fn files_without_an_object_go_at_start() {
    let options = Options { orphan_age_seconds: 0, ..Options::default() };
    for database in db::testing::all(TABLES, &[]).await.unwrap() {
        let mut cloud = Cloud::on(database, options.clone()).await;
        cloud.make("/c", &[], "").await;
        cloud.make("/c/o", &[], "kept").await;
        // Died while bytes came, and between the bytes and their row.
        std::fs::write(cloud.directory.path().join("incoming/half"), "ha").unwrap();
        std::fs::write(cloud.directory.path().join("ab/abcdef"), "whole").unwrap();
        cloud.start_again().await;
        assert_eq!(cloud.files().len(), 1);
        assert_eq!(cloud.get("/c/o").await.text(), "kept");
    }
}

#[tokio::test]
async fn on_a_shared_database_what_is_new_may_be_anothers() {
    let Some(database) = db::testing::postgres(TABLES, &[]).await.unwrap() else { return };
    let mut cloud = Cloud::on(database, Options::default()).await;
    std::fs::write(cloud.directory.path().join("incoming/half"), "ha").unwrap();
    std::fs::write(cloud.directory.path().join("ab/abcdef"), "whole").unwrap();
    cloud.start_again().await;
    assert_eq!(cloud.files().len(), 2);
}

#[tokio::test]
async fn every_statement_is_understood() {
    for cloud in clouds().await {
        assert!(prepare_all(&cloud.database.db, TABLES).await.unwrap() > 5);
    }
}
