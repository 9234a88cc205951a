//! What a watcher knows without asking the database.

use service_kit::database::Database;
use service_kit::postgres::DatabaseUrl;

use super::*;
use crate::domain::ids::TaskId;

fn position(text: &str) -> Position {
    Position::from_snapshot(text).unwrap()
}

fn at(position: &Position, seconds: i64) -> Whereabouts {
    Whereabouts { position: position.clone(), current_at: DateTime::from_timestamp(seconds, 0).unwrap() }
}

fn change(xact: i64) -> Change {
    let (kind, user_id, task_id) = (ChangeKind::Upserted, UserId::NOBODY, TaskId::new());
    Change { key: ChangeKey { kind, user_id, task_id, version: 1, xact }, task: None }
}

/// A feed, and a store whose database nobody can reach: a test that asks it fails.
fn unreachable() -> (Feed, TaskStore) {
    let url: DatabaseUrl = "postgres://nobody@127.0.0.1:1/none?sslmode=disable".parse().unwrap();
    (Feed::default(), TaskStore::new(Database::new(&url, 1).unwrap()))
}

fn look(feed: &Feed, number: u64, position: &Position, changed: Option<Vec<UserId>>) {
    feed.note(number, changed);
    feed.shared.looks.send_replace(Look { number, at: Some(Instant::now()), position: position.clone() });
}

/// A token within a heap of changes is as old as what lies behind it, and leaves nothing out that has a smaller number.
#[tokio::test]
async fn who_breaks_off_in_a_heap_of_changes_comes_back_to_the_rest_of_it() {
    let (from, to) = (position("10:10:"), position("14:15:"));
    let changes = [10, 12, 11, 13].map(change);
    let places = after_each(&changes, &at(&from, 100), &to, &at(&to, 200));
    let seen = |whereabouts: &Whereabouts| -> Vec<i64> {
        (10..15).filter(|number| whereabouts.position.sees(*number)).collect()
    };
    // 12 is told before 11: behind it 11 is still to come, so whoever comes back is told 12 again.
    assert_eq!(
        places.iter().map(seen).collect::<Vec<_>>(),
        [vec![10], vec![10], vec![10, 11, 12], vec![10, 11, 12, 13, 14]]
    );
    let ages: Vec<i64> = places.iter().map(|whereabouts| whereabouts.current_at.timestamp()).collect();
    assert_eq!(ages, [100, 100, 100, 200], "only the last has nothing behind it");
    assert!(after_each(&[], &at(&from, 100), &to, &at(&to, 200)).is_empty());
}

/// As after a restore onto another server, whose transactions have smaller numbers.
#[tokio::test]
async fn a_position_ahead_of_the_database_or_too_old_ends_in_a_snapshot_or_in_its_error() {
    let ahead = (position("200:200:"), now());
    let old = (position("50:50:"), now() - RESUMABLE_FOR);
    for (position_at, current_at) in [ahead, old] {
        for or_snapshot in [false, true] {
            let (feed, store) = unreachable();
            let begin = Begin::Behind { position: position_at.clone(), current_at, or_snapshot };
            let mut watcher = feed.watch(store, UserId::NOBODY, Scope::All, begin).unwrap();
            look(&feed, 1, &position("100:100:"), None);
            let next = watcher.next().await;
            if or_snapshot {
                assert!(matches!(next, Ok(None)) && watcher.snapshot.is_some(), "{next:?}");
            } else {
                assert!(matches!(next, Err(WatchEnd::PositionUnknown)), "{next:?}");
            }
        }
    }
}

/// A watcher that is late for some looks reads when one of them was about its owner, and only then.
#[tokio::test]
async fn a_look_that_was_missed_counts() {
    let owner = UserId(uuid::Uuid::now_v7());
    for (scope, missed, is_read) in [
        (Scope::Of(owner), Some(vec![owner]), true),
        (Scope::Of(owner), Some(vec![UserId(uuid::Uuid::now_v7())]), false),
        (Scope::Of(owner), Some(vec![]), false),
        (Scope::All, Some(vec![owner]), true),
        (Scope::All, Some(vec![]), false),
        // A look that did not know who had changed something: the first after a time without watchers, or too many owners.
        (Scope::Of(owner), None, true),
        (Scope::All, None, true),
    ] {
        let (feed, store) = unreachable();
        let begin = Begin::Behind { position: position("10:10:"), current_at: now(), or_snapshot: false };
        let mut watcher = feed.watch(store, owner, scope, begin).unwrap();
        watcher.looked = Some(1);
        look(&feed, 1, &position("10:10:"), Some(vec![]));
        // Three looks, of which the watcher sees the last.
        look(&feed, 2, &position("11:11:"), missed.clone());
        look(&feed, 3, &position("12:12:"), Some(vec![]));
        look(&feed, 4, &position("13:13:"), Some(vec![]));
        match watcher.next().await {
            Err(WatchEnd::Store(_)) => assert!(is_read, "{scope:?} reads for {missed:?}"),
            step => {
                assert!(!is_read, "{scope:?} does not read for {missed:?}: {step:?}");
                assert_eq!(watcher.place_at.position, position("13:13:"));
                assert_eq!(watcher.looked, Some(4));
            }
        }
    }
}
