//! Nova's tables and statements on both databases.

use nova::TABLES;

#[tokio::test]
async fn every_statement_is_understood_by_both_databases() {
    for test in db::testing::all(TABLES, &[]).await.unwrap() {
        assert!(db::testing::prepare_all(&test.db, TABLES).await.unwrap() > 60);
    }
}
