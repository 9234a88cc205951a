//! The revocations as this replica knows them, read from the database a few times a second, and followed by whoever watches.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use service_kit::database::DatabaseError;
use service_kit::readiness::Readiness;
use service_kit::tasks::TaskError;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::background::SCHEMA;
use crate::store::AuthStore;
use crate::store::revocations::Revocation;

/// How often the database is read while somebody watches: a revocation arrives within this time and a round trip.
const LOOK: Duration = Duration::from_millis(100);
/// And while nobody does.
const LOOK_IDLE: Duration = Duration::from_secs(1);
/// Revocations that are read at a time.
const PAGE: i64 = 5_000;
/// Who reads nothing for so long does not say that nothing happened.
const CURRENT_FOR: Duration = Duration::from_secs(3);
/// A sign of life comes this often when there is nothing else.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a watcher waits for what another replica has told it already.
const CATCH_UP: Duration = Duration::from_secs(2);
/// What nobody needs any more is forgotten this often.
const EXPIRE: Duration = Duration::from_secs(60);

/// What is revoked. Cheap to clone; all clones share it.
#[derive(Clone, Default)]
pub struct Revocations {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// By revision.
    log: RwLock<BTreeMap<i64, Arc<Revocation>>>,
    reads: watch::Sender<Reads>,
    wanted: Notify,
}

/// How far the log reaches.
#[derive(Debug, Clone, Copy, Default)]
struct Reads {
    /// The newest revision.
    revision: i64,
    /// When the last good read began; `None`: there was none.
    at: Option<Instant>,
}

impl Reads {
    fn is_current(&self) -> bool {
        self.at.is_some_and(|at| at.elapsed() < CURRENT_FOR)
    }
}

impl Revocations {
    /// Reads until told to stop. A database that is away is told by its own latch, and by the silence here.
    pub async fn run(self, store: AuthStore, readiness: Readiness, stop: CancellationToken) -> Result<(), TaskError> {
        let mut expired_at = Instant::now();
        let mut is_failing = false;
        loop {
            if readiness.is_set(SCHEMA) {
                // A server that vanished without a word must not hold this up: the connection is given up with the read.
                let read = timeout(CURRENT_FOR, self.read(&store)).await.unwrap_or(Err(DatabaseError::Timeout));
                if let Err(error) = &read
                    && !is_failing
                {
                    tracing::warn!(%error, "the revocations cannot be read");
                }
                is_failing = read.is_err();
            }
            if expired_at.elapsed() >= EXPIRE {
                expired_at = Instant::now();
                self.forget(Utc::now());
            }
            let pause = if self.shared.reads.receiver_count() > 0 { LOOK } else { LOOK_IDLE };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
                () = self.shared.wanted.notified() => {}
            }
        }
    }

    async fn read(&self, store: &AuthStore) -> Result<(), DatabaseError> {
        let at = Instant::now();
        let mut revision = self.shared.reads.borrow().revision;
        if store.revocation_newest().await? < revision {
            // The database is another one than it was, as after a restore: nobody can go on from here.
            tracing::warn!("the revocations have gone back; all that watch begin anew");
            self.shared.log.write().unwrap_or_else(PoisonError::into_inner).clear();
            revision = 0;
        }
        loop {
            let (found, reached) = store.revocations_behind(revision, PAGE).await?;
            let Some(reached) = reached else { break };
            let mut log = self.shared.log.write().unwrap_or_else(PoisonError::into_inner);
            log.extend(found.into_iter().map(|entry| (entry.revision, Arc::new(entry))));
            revision = reached;
        }
        self.shared.reads.send_replace(Reads { revision, at: Some(at) });
        Ok(())
    }

    fn forget(&self, now: DateTime<Utc>) {
        let mut log = self.shared.log.write().unwrap_or_else(PoisonError::into_inner);
        log.retain(|_, entry| entry.forget_at > now);
    }

    /// Follows from behind a revision; from a snapshot on for 0.
    pub fn follow(&self, after: i64) -> Follower {
        let reads = self.shared.reads.subscribe();
        self.shared.wanted.notify_one();
        let position = (after > 0).then_some(after);
        let now = Instant::now();
        let (revocations, waiting) = (self.clone(), VecDeque::new());
        Follower { revocations, reads, position, waiting, is_greeted: false, since: now, told_at: now }
    }

    /// All that counts behind a revision, up to another.
    fn between(&self, after: i64, up_to: i64) -> Vec<Arc<Revocation>> {
        let log = self.shared.log.read().unwrap_or_else(PoisonError::into_inner);
        let now = Utc::now();
        let range = log.range((std::ops::Bound::Excluded(after), std::ops::Bound::Included(up_to)));
        range.map(|(_, entry)| Arc::clone(entry)).filter(|entry| entry.forget_at > now).collect()
    }
}

/// What a follower gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A snapshot begins.
    SnapshotStarted,
    /// It is complete, as of this revision.
    SnapshotCompleted(i64),
    /// Something is void; within a snapshot nobody can resume from there.
    Revoked {
        /// What.
        revocation: Arc<Revocation>,
        /// Whether a snapshot is under way.
        in_snapshot: bool,
    },
    /// Nothing happened up to this revision.
    Heartbeat(i64),
}

/// The revision to follow from lies ahead of what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown revision")]
pub struct RevisionUnknown;

/// Follows the revocations.
pub struct Follower {
    revocations: Revocations,
    reads: watch::Receiver<Reads>,
    /// The last revision that was given; `None`: the snapshot is still to come.
    position: Option<i64>,
    waiting: VecDeque<Step>,
    /// Whether a first sign of life was given.
    is_greeted: bool,
    /// A snapshot is read after this time, so that it holds what was revoked before.
    since: Instant,
    /// When the last step was given.
    told_at: Instant,
}

impl Follower {
    /// The next step; waits for it.
    ///
    /// # Errors
    /// [`RevisionUnknown`]: the follower must begin anew.
    pub async fn next(&mut self) -> Result<Step, RevisionUnknown> {
        loop {
            if let Some(step) = self.waiting.pop_front() {
                self.told_at = Instant::now();
                return Ok(step);
            }
            let reads = *self.reads.borrow_and_update();
            match self.position {
                // Without a read that is current there is no snapshot.
                None if reads.at.is_some_and(|at| at >= self.since) && reads.is_current() => {
                    self.snapshot(reads.revision)
                }
                Some(position) if reads.is_current() && position > reads.revision => {
                    // Another replica was faster, or the database is another one.
                    if self.caught_up(position).await {
                        continue;
                    }
                    return Err(RevisionUnknown);
                }
                Some(position) if position < reads.revision => self.news(position, reads.revision),
                Some(position) if !self.is_greeted && reads.is_current() => {
                    self.is_greeted = true;
                    self.waiting.push_back(Step::Heartbeat(position));
                }
                _ => self.pause().await,
            }
        }
    }

    fn snapshot(&mut self, revision: i64) {
        let entries = self.revocations.between(0, revision);
        self.waiting.push_back(Step::SnapshotStarted);
        self.waiting.extend(entries.into_iter().map(|revocation| Step::Revoked { revocation, in_snapshot: true }));
        self.waiting.push_back(Step::SnapshotCompleted(revision));
        self.position = Some(revision);
        self.is_greeted = true;
    }

    fn news(&mut self, position: i64, revision: i64) {
        let entries = self.revocations.between(position, revision);
        self.waiting.extend(entries.into_iter().map(|revocation| Step::Revoked { revocation, in_snapshot: false }));
        self.position = Some(revision);
    }

    /// Waits for news; after some time without them there is a sign of life, unless nothing could be read.
    async fn pause(&mut self) {
        // The sender lives as long as `self.revocations`; it tells of every read.
        let _read = timeout_at(self.told_at + HEARTBEAT, self.reads.changed()).await;
        if self.told_at.elapsed() >= HEARTBEAT {
            self.told_at = Instant::now();
            if let Some(position) = self.position
                && self.reads.borrow().is_current()
            {
                self.waiting.push_back(Step::Heartbeat(position));
            }
        }
    }

    /// Whether the log gets to a revision that this replica has not seen yet.
    async fn caught_up(&mut self, position: i64) -> bool {
        self.revocations.shared.wanted.notify_one();
        let there = self.reads.wait_for(|reads| reads.revision >= position);
        timeout(CATCH_UP, there).await.is_ok_and(|there| there.is_ok())
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use uuid::Uuid;

    use super::*;
    use crate::store::revocations::Revoked;

    fn entry(revision: i64, ends_in: TimeDelta) -> Revocation {
        let now = Utc::now();
        Revocation { revision, revoked: Revoked::Session(Uuid::now_v7()), not_before: now, forget_at: now + ends_in }
    }

    fn known(revocations: &Revocations, entries: Vec<Revocation>) {
        let revision = entries.iter().map(|entry| entry.revision).max().unwrap_or_default();
        let mut log = revocations.shared.log.write().unwrap();
        log.extend(entries.into_iter().map(|entry| (entry.revision, Arc::new(entry))));
        drop(log);
        revocations.shared.reads.send_modify(|reads| {
            *reads = Reads { revision, at: Some(Instant::now()) };
        });
    }

    fn revision(step: Step) -> i64 {
        match step {
            Step::Revoked { revocation, .. } => revocation.revision,
            other => unreachable!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_then_the_news_then_signs_of_life() {
        let revocations = Revocations::default();
        let minute = TimeDelta::minutes(1);
        known(&revocations, vec![entry(1, -minute), entry(2, minute), entry(3, minute)]);
        let mut follower = revocations.follow(0);
        assert_eq!(follower.next().await, Ok(Step::SnapshotStarted));
        assert_eq!(revision(follower.next().await.unwrap()), 2, "what has expired is left out");
        assert_eq!(revision(follower.next().await.unwrap()), 3);
        assert_eq!(follower.next().await, Ok(Step::SnapshotCompleted(3)));
        known(&revocations, vec![entry(7, minute)]);
        assert_eq!(revision(follower.next().await.unwrap()), 7);
        revocations.shared.reads.send_modify(|reads| reads.at = Some(Instant::now() + HEARTBEAT));
        let before = Instant::now();
        assert_eq!(follower.next().await, Ok(Step::Heartbeat(7)));
        assert!(before.elapsed() >= HEARTBEAT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_resumes_and_is_greeted_at_once() {
        let revocations = Revocations::default();
        known(&revocations, vec![entry(5, TimeDelta::minutes(1)), entry(9, TimeDelta::minutes(1))]);
        let mut behind = revocations.follow(5);
        assert_eq!(revision(behind.next().await.unwrap()), 9);
        assert_eq!(behind.next().await, Ok(Step::Heartbeat(9)));
        let mut current = revocations.follow(9);
        let before = Instant::now();
        assert_eq!(current.next().await, Ok(Step::Heartbeat(9)));
        assert_eq!(before.elapsed(), Duration::ZERO);
        assert_eq!(revocations.follow(10).next().await, Err(RevisionUnknown));
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_is_not_read_gives_no_sign_of_life() {
        let revocations = Revocations::default();
        let mut follower = revocations.follow(0);
        assert!(timeout(Duration::from_secs(60), follower.next()).await.is_err());
        known(&revocations, vec![entry(1, TimeDelta::minutes(1))]);
        for _ in 0..3 {
            follower.next().await.unwrap();
        }
        assert!(timeout(Duration::from_secs(60), follower.next()).await.is_err(), "the last read is long ago");
    }
}
