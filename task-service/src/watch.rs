//! Watching tasks. One reader in a replica looks, while anybody watches, whose tasks have changed; each watcher then reads its own
//! changes from the log, as fast as its client takes them. So a watcher holds no more than one read in memory, however slow it is,
//! and what happens live, after a break and after a stall is one and the same.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use service_kit::database::DatabaseError;
use service_kit::readiness::Readiness;
use service_kit::tasks::TaskError;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::background::SCHEMA;
use crate::domain::access::Scope;
use crate::domain::change::{Change, ChangeKind};
use crate::domain::ids::{TaskId, UserId};
use crate::domain::position::Position;
use crate::domain::resume_token::RESUMABLE_FOR;
use crate::domain::task::Task;
use crate::domain::time::now;
use crate::store::{TaskStore, TaskStoreError};

/// How often the log is looked at while somebody watches: a change arrives within this time and two round trips.
const LOOK: Duration = Duration::from_millis(100);
/// A sign of life comes this often when there is nothing else.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// A stream that has no news of the database for so long ends: its client comes back to a replica that has.
const SILENT_FOR: Duration = Duration::from_secs(10);
/// Longest time for one read.
const READ: Duration = Duration::from_secs(10);
/// A watcher whose access has ended is noticed within this time.
const CHECK: Duration = Duration::from_millis(500);
/// Most watchers of one replica.
const MOST_WATCHERS: usize = 4_096;
/// How far the clocks of those who write may differ.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::minutes(5);

/// What the watchers of a replica share. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    shared: Arc<Shared>,
}

struct Shared {
    looks: watch::Sender<Look>,
    wanted: Notify,
    places: Arc<Semaphore>,
}

/// What a look at the log has found.
#[derive(Debug, Clone, Default)]
struct Look {
    /// Counts the looks.
    number: u64,
    /// When it began; `None`: there was none.
    at: Option<Instant>,
    /// As far as it saw.
    position: Position,
    /// Whose tasks have changed since the look before; `None`: that is not known.
    changed: Option<Arc<BTreeSet<UserId>>>,
}

/// There are as many watchers as a replica takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many watchers")]
pub struct TooManyWatchers;

impl Default for Feed {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(MOST_WATCHERS));
        Self { shared: Arc::new(Shared { looks: watch::Sender::default(), wanted: Notify::new(), places }) }
    }
}

impl Feed {
    /// Looks until told to stop, while anybody watches. A database that is away is told by its own latch, and by the silence here.
    pub async fn run(self, store: TaskStore, readiness: Readiness, stop: CancellationToken) -> Result<(), TaskError> {
        let mut is_failing = false;
        loop {
            let watchers = self.shared.looks.receiver_count();
            metrics::gauge!("task_watchers").set(watchers as f64);
            if watchers == 0 {
                // Nobody knows then what has changed since.
                self.shared.looks.send_modify(|look| look.at = None);
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = self.shared.wanted.notified() => {}
                }
            }
            if readiness.is_set(SCHEMA) {
                let look = timeout(READ, self.look(&store)).await.unwrap_or(Err(DatabaseError::Timeout.into()));
                if let Err(error) = &look
                    && !is_failing
                {
                    tracing::warn!(%error, "the changes of tasks cannot be read");
                }
                is_failing = look.is_err();
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(LOOK) => {}
                () = self.shared.wanted.notified() => {}
            }
        }
    }

    async fn look(&self, store: &TaskStore) -> Result<(), TaskStoreError> {
        let at = Instant::now();
        let position = store.position_now().await?;
        let last = self.shared.looks.borrow().clone();
        let changed = match last.at {
            Some(_) if last.position == position => Some(BTreeSet::new()),
            Some(_) => Some(store.users_changed(&last.position, &position).await?),
            None => None,
        };
        let changed = changed.map(Arc::new);
        self.shared.looks.send_replace(Look { number: last.number + 1, at: Some(at), position, changed });
        Ok(())
    }

    /// Watches from a position on, or from a snapshot.
    ///
    /// # Errors
    /// [`TooManyWatchers`]
    pub fn watch(&self, store: TaskStore, scope: Scope, begin: Begin) -> Result<Watcher, TooManyWatchers> {
        let place = Arc::clone(&self.shared.places).try_acquire_owned().map_err(|_| TooManyWatchers)?;
        let looks = self.shared.looks.subscribe();
        self.shared.wanted.notify_one();
        let since = Instant::now();
        let mut watcher = Watcher {
            store,
            scope,
            looks,
            since,
            told_at: since,
            heard_at: since,
            looked: None,
            current_at: now(),
            position: Position::default(),
            snapshot: None,
            fresh: HashMap::new(),
            fresh_until: None,
            waiting: VecDeque::new(),
            _place: place,
        };
        match begin {
            Begin::Snapshot => watcher.snapshot = Some(Snapshot::default()),
            Begin::Behind(position, current_at) => {
                // At once, so that nothing is lost when the stream breaks before its first change.
                watcher.waiting.push_back(Step::Heartbeat(position.clone()));
                watcher.position = position;
                watcher.current_at = current_at;
            }
        }
        Ok(watcher)
    }
}

/// Where a watcher begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// With the tasks as they are.
    Snapshot,
    /// With the changes behind a position, which was current at this time.
    Behind(Position, DateTime<Utc>),
}

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A snapshot begins.
    SnapshotStarted,
    /// A task of the snapshot.
    InSnapshot(Task),
    /// It is complete with so many tasks.
    SnapshotCompleted(i64, Position),
    /// A change, and where the watcher is then.
    Changed(Change, Position),
    /// Nothing happened up to here.
    Heartbeat(Position),
}

/// Why a watch ends.
#[derive(Debug, thiserror::Error)]
pub enum WatchEnd {
    /// The position is not one of this database, or what lies behind it is not kept any more.
    #[error("the position is too old, or lies ahead of the database")]
    PositionUnknown,
    /// Nothing is known of the database for too long.
    #[error("no news of the database")]
    Silent,
    /// The changes cannot be read.
    #[error(transparent)]
    Store(#[from] TaskStoreError),
}

#[derive(Debug, Default)]
struct Snapshot {
    /// Where the next page begins; `None`: not begun.
    behind: Option<(UserId, TaskId)>,
    /// Changes behind here are news after the snapshot.
    position: Option<Position>,
    begun_at: Option<DateTime<Utc>>,
    count: i64,
}

/// Watches the tasks of a scope.
pub struct Watcher {
    store: TaskStore,
    scope: Scope,
    looks: watch::Receiver<Look>,
    /// Looks from before count for nothing.
    since: Instant,
    /// When the last step was given.
    told_at: Instant,
    /// When the last look arrived.
    heard_at: Instant,
    /// The last look that was read up to.
    looked: Option<u64>,
    position: Position,
    /// When nothing lay behind the position: who falls back too far misses what is not kept any more.
    current_at: DateTime<Utc>,
    snapshot: Option<Snapshot>,
    /// Versions of tasks that may have changed while the snapshot was read: their news up to there is in it.
    fresh: HashMap<TaskId, i64>,
    /// A look from after this time has all such news behind it.
    fresh_until: Option<Instant>,
    waiting: VecDeque<Step>,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    /// The next step; waits for it. `None` from time to time, so that the caller can see whether the watcher may still watch.
    ///
    /// # Errors
    /// [`WatchEnd`]
    pub async fn next(&mut self) -> Result<Option<Step>, WatchEnd> {
        if self.waiting.is_empty() {
            if self.snapshot.is_some() {
                self.snapshot_read().await?;
            } else {
                self.news_read().await?;
            }
        }
        let step = self.waiting.pop_front();
        if step.is_some() {
            self.told_at = Instant::now();
        }
        Ok(step)
    }

    /// When the watcher had last seen everything: what the age of its position counts from.
    pub fn current_at(&self) -> DateTime<Utc> {
        self.current_at
    }

    /// Reads the next page of the snapshot.
    async fn snapshot_read(&mut self) -> Result<(), WatchEnd> {
        let Some(snapshot) = &mut self.snapshot else { return Ok(()) };
        if snapshot.position.is_none() {
            let begun_at = now();
            snapshot.position = Some(within(self.store.position_now()).await?);
            snapshot.begun_at = Some(begun_at - CLOCKS_DIFFER);
            self.current_at = begun_at;
            self.waiting.push_back(Step::SnapshotStarted);
        }
        let page = within(self.store.tasks_page(self.scope, snapshot.behind)).await?;
        for task in &page {
            if snapshot.begun_at.is_some_and(|begun_at| task.updated_at >= begun_at) {
                self.fresh.insert(task.id, task.version);
            }
        }
        let last = page.last().map(|task| (task.user_id, task.id));
        snapshot.count += i64::try_from(page.len()).unwrap_or_default();
        self.waiting.extend(page.into_iter().map(Step::InSnapshot));
        if last.is_some() {
            snapshot.behind = last;
        } else {
            self.position = snapshot.position.clone().unwrap_or_default();
            self.waiting.push_back(Step::SnapshotCompleted(snapshot.count, self.position.clone()));
            self.since = Instant::now();
            self.heard_at = self.since;
            self.fresh_until = Some(self.since);
            self.snapshot = None;
        }
        Ok(())
    }

    /// Reads what is new, or waits a while for it.
    async fn news_read(&mut self) -> Result<(), WatchEnd> {
        let look = self.looks.borrow_and_update().clone();
        let is_new = look.at.is_some_and(|at| at >= self.since) && self.looked != Some(look.number);
        if !is_new {
            return self.pause().await;
        }
        self.heard_at = Instant::now();
        let is_kept = now() - self.current_at < RESUMABLE_FOR;
        if look.position.xmax() < self.position.xmax() || !is_kept {
            return Err(WatchEnd::PositionUnknown);
        }
        if self.is_untouched(&look) {
            self.position = look.position.clone();
        } else {
            let read = within(self.store.changes_behind(self.scope, &self.position, &look.position)).await?;
            self.tell(read.changes, &look.position);
            self.position = read.reached;
        }
        if self.position == look.position {
            self.looked = Some(look.number);
            // The look began a moment ago; the time between is nothing to how long changes are kept.
            self.current_at = now();
            if self.fresh_until.is_some_and(|until| look.at.is_some_and(|at| at >= until)) {
                self.fresh = HashMap::new();
                self.fresh_until = None;
            }
        }
        Ok(())
    }

    /// Whether nothing of this scope lies between the last look and this one.
    fn is_untouched(&self, look: &Look) -> bool {
        let follows = self.looked.is_some_and(|looked| looked + 1 == look.number);
        match (&look.changed, self.scope) {
            (Some(changed), Scope::Of(owner)) => follows && !changed.contains(&owner),
            (Some(changed), Scope::All) => follows && changed.is_empty(),
            (None, _) => false,
        }
    }

    /// Queues changes, each with the position of who has been told up to there: one from which nothing is left out.
    fn tell(&mut self, changes: Vec<Change>, to: &Position) {
        let mut least_behind = vec![i64::MAX; changes.len()];
        for place in (1..changes.len()).rev() {
            least_behind[place - 1] = least_behind[place].min(changes[place].xact);
        }
        let (mut position, mut greatest) = (self.position.clone(), i64::MIN);
        for (change, least_behind) in changes.into_iter().zip(least_behind) {
            greatest = greatest.max(change.xact);
            if greatest < least_behind {
                position = self.position.advanced(to, greatest);
            }
            let is_known = self.fresh.get(&change.task.id).is_some_and(|version| *version >= change.task.version);
            // Who sees everybody's tasks sees it with its new owner.
            let stays = change.kind == ChangeKind::Moved && self.scope == Scope::All;
            if !is_known && !stays {
                self.waiting.push_back(Step::Changed(change, position.clone()));
            }
        }
    }

    /// Waits for a look, for a short time; after a longer one without anything there is a sign of life.
    async fn pause(&mut self) -> Result<(), WatchEnd> {
        let _looked = timeout(CHECK, self.looks.changed()).await;
        if self.heard_at.elapsed() >= SILENT_FOR {
            return Err(WatchEnd::Silent);
        }
        if self.told_at.elapsed() >= HEARTBEAT && self.looked.is_some() {
            self.waiting.push_back(Step::Heartbeat(self.position.clone()));
        }
        Ok(())
    }
}

async fn within<T>(read: impl Future<Output = Result<T, TaskStoreError>>) -> Result<T, TaskStoreError> {
    timeout(READ, read).await.unwrap_or(Err(DatabaseError::Timeout.into()))
}
