//! Disks in a real Ceph cluster: `scripts/ceph` starts one.

use host_block::Rbd;
use tokio::io::AsyncReadExt;

fn pool() -> Rbd {
    let conf = std::env::var("FERROSTACK_TEST_CEPH").expect("said by scripts/test-ceph");
    Rbd { pool: "images".into(), user: String::new(), conf }
}

#[tokio::test]
#[ignore = "needs a Ceph cluster: make test-ceph"]
async fn parts_clones_and_ways_back() {
    let pool = pool();
    let file = tempfile::NamedTempFile::new().unwrap();
    let bytes: Vec<u8> = (0..9u32 << 20).map(|n| (n % 251) as u8).collect();
    std::fs::write(file.path(), &bytes).unwrap();
    let image = base::id::uuid();
    pool.import(file.path(), &image, "snap", 8).await.unwrap();
    for range in [1..2, (8 << 20) - 1..(8 << 20) + 1, 5..9 << 20] {
        let mut part = Vec::new();
        pool.part(&image, "snap", range.clone()).await.unwrap().read_to_end(&mut part).await.unwrap();
        assert!(part == bytes[range.start as usize..range.end as usize], "{range:?}");
    }

    let disk = format!("{image}_host");
    assert_eq!(pool.size(&disk).await.unwrap(), None);
    for _ in 0..2 {
        pool.clone_of(&pool, &image, "snap", &disk).await.unwrap();
        pool.grow(&disk, 16 << 20).await.unwrap();
    }
    assert_eq!(pool.size(&disk).await.unwrap(), Some(16 << 20));
    assert!(pool.remove(&image, "snap").await.unwrap_err().is(base::ErrorKind::Conflict), "it has a clone");
    for _ in 0..2 {
        pool.snapshot(&disk, "aside").await.unwrap();
    }
    pool.grow(&disk, 32 << 20).await.unwrap();
    pool.roll_back(&disk, "aside").await.unwrap();
    assert_eq!(pool.size(&disk).await.unwrap(), Some(16 << 20));
    for _ in 0..2 {
        pool.forget_snapshot(&disk, "aside").await.unwrap();
    }
    pool.snapshot(&disk, "another").await.unwrap();
    for _ in 0..2 {
        pool.discard(&disk).await.unwrap();
    }
    let part = format!("{disk}.part");
    for _ in 0..2 {
        pool.create(&part, 1 << 20).await.unwrap();
    }
    pool.rename(&part, &disk).await.unwrap();
    assert_eq!(pool.size(&disk).await.unwrap(), Some(1 << 20));
    pool.discard(&disk).await.unwrap();
    pool.remove(&image, "snap").await.unwrap();
}
