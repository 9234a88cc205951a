//! The pool with real hashes, small ones.

use super::*;

const COST: HashCost = HashCost { memory_kib: 256, iterations: 1, parallelism: 2 };
const LEGACY: &str =
    "$argon2id$v=19$m=65536,t=3,p=4$unU4LmttirdJ189xB/EiaQ$eCrCpkR8Qg65HJzzNMI4IF6l69BRGjclZU9br0T/cpo";

fn config() -> HashingPoolConfig {
    let ceiling = HashCost { memory_kib: 65_536, iterations: 1_000, parallelism: 4 };
    HashingPoolConfig { cost: COST, bounds: HashBounds { floor: COST, ceiling }, threads: 1, queue: 4 }
}

/// A job that keeps the thread busy for a while.
fn slow() -> StoredHash {
    StoredHash::parse(&LEGACY.replace("t=3", "t=30")).unwrap()
}

#[tokio::test]
async fn hashes_verify_and_salts_differ() {
    let pool = HashingPool::start(config()).unwrap();
    let (one, other) = (pool.hash("correct horse").await.unwrap(), pool.hash("correct horse").await.unwrap());
    assert_ne!(one, other);
    let stored = StoredHash::parse(&one).unwrap();
    assert!(!stored.is_weaker_than(COST));
    assert!(pool.verify("correct horse", Some(stored.clone())).await.unwrap());
    assert!(!pool.verify("Correct horse", Some(stored.clone())).await.unwrap());
    assert!(!pool.verify("", Some(stored)).await.unwrap());
}

#[tokio::test]
async fn a_hash_of_the_legacy_system_verifies_with_its_four_lanes() {
    let pool = HashingPool::start(config()).unwrap();
    let stored = StoredHash::parse(LEGACY).unwrap();
    assert!(pool.verify("Carol-Pa55word!", Some(stored.clone())).await.unwrap());
    assert!(!pool.verify("Carol-Pa55word", Some(stored)).await.unwrap());
}

#[tokio::test]
async fn without_a_usable_hash_nothing_fits() {
    let pool = HashingPool::start(config()).unwrap();
    assert!(!pool.verify("anything", None).await.unwrap());
    // 4 TiB: it would not come back if it were tried.
    let huge = StoredHash::parse(&LEGACY.replace("m=65536", "m=4294967295")).unwrap();
    assert!(!pool.may_verify(&huge));
    assert!(!pool.verify("anything", Some(huge)).await.unwrap());
}

#[tokio::test]
async fn a_full_queue_answers_at_once_and_says_when_to_come_back() {
    let pool = HashingPool::start(config()).unwrap();
    let busy = pool.clone();
    let first = tokio::spawn(async move { busy.verify("x", Some(slow())).await });
    // Until the thread has taken it.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let hash = |pool: HashingPool| async move { pool.hash("y").await };
    let waiting: Vec<_> = (0..4).map(|_| tokio::spawn(hash(pool.clone()))).collect();
    while pool.shared.lock().jobs.len() < 4 {
        tokio::task::yield_now().await;
    }
    match pool.hash("z").await {
        Err(HashingBusy::Full { retry_after }) => assert!(retry_after >= Duration::from_secs(1)),
        other => panic!("expected a full queue, not {other:?}"),
    }
    for waiting in waiting {
        assert!(waiting.await.unwrap().is_ok());
    }
    assert!(!first.await.unwrap().unwrap());
}

#[tokio::test]
async fn callers_that_go_away_give_their_places_back() {
    let pool = HashingPool::start(config()).unwrap();
    let busy = pool.clone();
    let first = tokio::spawn(async move { busy.verify("x", Some(slow())).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..100 {
        let gone = tokio::time::timeout(Duration::from_millis(1), pool.hash("gone")).await;
        assert!(gone.is_err(), "the thread is busy, so this waits until it is dropped, and is never refused: {gone:?}");
    }
    assert!(pool.hash("stays").await.is_ok());
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_threads_end_with_the_pool() {
    let pool = HashingPool::start(config()).unwrap();
    let shared = Arc::clone(&pool.shared);
    drop(pool);
    assert_eq!(Arc::strong_count(&shared), 1, "no thread holds the queue any more");
}
