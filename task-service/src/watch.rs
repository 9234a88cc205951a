//! Watching tasks. One reader in a replica looks, while anybody watches, whose tasks have changed; each watcher then reads its own
//! changes from the log, as fast as its client takes them. So a watcher holds no more than one read in memory, however slow it is,
//! and what happens live, after a break and after a stall is one and the same.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
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
use crate::domain::change::{Change, ChangeKey, ChangeKind};
use crate::domain::ids::{TaskId, UserId};
use crate::domain::position::Position;
use crate::domain::resume_token::RESUMABLE_FOR;
use crate::domain::task::Task;
use crate::domain::time::now;
use crate::store::{CHANGES_READ, TaskStore, TaskStoreError};

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
/// Most watchers of one replica, and of one caller there.
const MOST_WATCHERS: usize = 4_096;
const MOST_OF_ONE: usize = 16;
/// Owners whose last change is remembered; beyond that it begins anew.
const MOST_REMEMBERED: usize = 100_000;
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
    of_callers: Mutex<HashMap<UserId, usize>>,
    changed: Mutex<LastChanges>,
}

/// In which look whose tasks had changed last: who was late for some looks need not read for that.
#[derive(Default)]
struct LastChanges {
    /// Nothing is known of looks up to this one.
    unknown_to: u64,
    of_owner: HashMap<UserId, u64>,
    of_anybody: u64,
}

/// A place among the watchers; free again when it is dropped.
struct Place {
    shared: Arc<Shared>,
    caller: UserId,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut of_callers = self.shared.of_callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = of_callers.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                of_callers.remove(&self.caller);
            }
        }
    }
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
}

/// There are as many watchers as a replica takes, in all or of this caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many watchers")]
pub struct TooManyWatchers;

impl Default for Feed {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(MOST_WATCHERS));
        let (looks, wanted) = (watch::Sender::default(), Notify::new());
        Self {
            shared: Arc::new(Shared { looks, wanted, places, of_callers: Mutex::default(), changed: Mutex::default() }),
        }
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
        let number = last.number + 1;
        let changed = match last.at {
            Some(_) if last.position == position => Some(Vec::new()),
            Some(_) => Some(store.users_changed(&last.position, &position).await?),
            None => None,
        };
        self.note(number, changed);
        self.shared.looks.send_replace(Look { number, at: Some(at), position });
        Ok(())
    }

    /// Notes who changed something before look `number`; `None`: that is not known.
    fn note(&self, number: u64, changed: Option<Vec<UserId>>) {
        let mut last = self.shared.changed.lock().unwrap_or_else(PoisonError::into_inner);
        match changed {
            Some(changed) if last.of_owner.len() + changed.len() <= MOST_REMEMBERED => {
                if !changed.is_empty() {
                    last.of_anybody = number;
                }
                last.of_owner.extend(changed.into_iter().map(|owner| (owner, number)));
            }
            _ => *last = LastChanges { unknown_to: number, of_anybody: number, ..LastChanges::default() },
        }
    }

    /// A place for one more watcher of this caller.
    fn place(&self, caller: UserId) -> Result<Place, TooManyWatchers> {
        let permit = Arc::clone(&self.shared.places).try_acquire_owned().map_err(|_| TooManyWatchers)?;
        let mut of_callers = self.shared.of_callers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = of_callers.entry(caller).or_default();
        if *count >= MOST_OF_ONE {
            return Err(TooManyWatchers);
        }
        *count += 1;
        Ok(Place { shared: Arc::clone(&self.shared), caller, _permit: permit })
    }

    /// Where a watcher begins who wants what happens from now on.
    ///
    /// # Errors
    /// The database.
    pub async fn position_now(&self, store: &TaskStore) -> Result<Position, TaskStoreError> {
        within(store.position_now()).await
    }

    /// Watches from a position on, or from a snapshot.
    ///
    /// # Errors
    /// [`TooManyWatchers`]
    pub fn watch(
        &self,
        store: TaskStore,
        caller: UserId,
        scope: Scope,
        begin: Begin,
    ) -> Result<Watcher, TooManyWatchers> {
        let place = self.place(caller)?;
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
            towards: None,
            place_at: Whereabouts { position: Position::default(), current_at: now() },
            is_greeted: false,
            or_snapshot: false,
            snapshot: None,
            fresh: HashMap::new(),
            fresh_until: None,
            waiting: VecDeque::new(),
            place,
        };
        match begin {
            Begin::Snapshot => watcher.snapshot = Some(Snapshot::default()),
            Begin::Behind { position, current_at, or_snapshot } => {
                watcher.place_at = Whereabouts { position, current_at };
                watcher.or_snapshot = or_snapshot;
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
    /// With the changes behind a position.
    Behind {
        /// How far the watcher has come.
        position: Position,
        /// When nothing lay behind that.
        current_at: DateTime<Utc>,
        /// With a snapshot, should the position be too old.
        or_snapshot: bool,
    },
}

/// How far a watcher has come, and when nothing lay behind that: who falls back too far misses what is not kept any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whereabouts {
    /// Everything that this sees has been told.
    pub position: Position,
    /// What the age of the position counts from.
    pub current_at: DateTime<Utc>,
}

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A snapshot begins.
    SnapshotStarted,
    /// A task of the snapshot.
    InSnapshot(Task),
    /// It is complete with so many tasks.
    SnapshotCompleted(i64, Whereabouts),
    /// A change, and where the watcher is then.
    Changed(ChangeKind, Task, Whereabouts),
    /// Nothing happened up to here.
    Heartbeat(Whereabouts),
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
    /// The look that is being read up to, and when it arrived.
    towards: Option<(Look, DateTime<Utc>)>,
    place_at: Whereabouts,
    /// Whether anything was told.
    is_greeted: bool,
    /// A position that is too old is answered with a snapshot.
    or_snapshot: bool,
    snapshot: Option<Snapshot>,
    /// Versions of tasks that may have changed while the snapshot was read: their news up to there is in it.
    fresh: HashMap<TaskId, i64>,
    /// A look from after this time has all such news behind it.
    fresh_until: Option<Instant>,
    waiting: VecDeque<Waiting>,
    place: Place,
}

/// What is to be told next.
#[derive(Debug)]
enum Waiting {
    Step(Step),
    Change(Change, Whereabouts),
}

impl Watcher {
    /// The next step; waits for it. `None` from time to time, so that the caller can see whether the watcher may still watch.
    ///
    /// # Errors
    /// [`WatchEnd`]
    pub async fn next(&mut self) -> Result<Option<Step>, WatchEnd> {
        if self.waiting.is_empty() {
            let read = if self.snapshot.is_some() { self.snapshot_read().await } else { self.news_read().await };
            match read {
                Err(WatchEnd::PositionUnknown) if self.or_snapshot => self.snapshot = Some(Snapshot::default()),
                read => read?,
            }
        }
        // Also where every look brings something that is not this watcher's to know.
        if self.waiting.is_empty() && self.looked.is_some() && self.told_at.elapsed() >= HEARTBEAT {
            self.push(Step::Heartbeat(self.place_at.clone()));
        }
        let step = self.pop().await?;
        if step.is_some() {
            self.told_at = Instant::now();
            self.is_greeted = true;
        }
        Ok(step)
    }

    fn push(&mut self, step: Step) {
        self.waiting.push_back(Waiting::Step(step));
    }

    /// The first of what waits; reads the tasks of the next changes where they have not been read.
    async fn pop(&mut self) -> Result<Option<Step>, WatchEnd> {
        loop {
            match self.waiting.pop_front() {
                None => return Ok(None),
                Some(Waiting::Step(step)) => return Ok(Some(step)),
                Some(Waiting::Change(Change { key, task: Some(task) }, whereabouts)) => {
                    return Ok(Some(Step::Changed(key.kind, task, whereabouts)));
                }
                Some(first @ Waiting::Change(..)) => {
                    self.waiting.push_front(first);
                    self.tasks_read().await?;
                }
            }
        }
    }

    /// Reads the tasks of the first changes that wait. What is not kept any more is left out: its task is gone.
    async fn tasks_read(&mut self) -> Result<(), WatchEnd> {
        let unread = |waiting: &Waiting| match waiting {
            Waiting::Change(Change { key, task: None }, _) => Some(*key),
            _ => None,
        };
        let most = usize::try_from(CHANGES_READ).unwrap_or(usize::MAX);
        let wanted: Vec<ChangeKey> = self.waiting.iter().map_while(unread).take(most).collect();
        let read = within(self.store.changes_tasks(&wanted)).await?;
        let first: Vec<Waiting> = self.waiting.drain(..wanted.len()).collect();
        for (waiting, task) in first.into_iter().zip(read).rev() {
            if let (Waiting::Change(change, whereabouts), Some(task)) = (waiting, task) {
                self.waiting.push_front(Waiting::Change(Change { task: Some(task), ..change }, whereabouts));
            }
        }
        Ok(())
    }

    /// Reads the next page of the snapshot.
    async fn snapshot_read(&mut self) -> Result<(), WatchEnd> {
        let Some(snapshot) = &mut self.snapshot else { return Ok(()) };
        if snapshot.position.is_none() {
            let begun_at = now();
            snapshot.position = Some(within(self.store.position_now()).await?);
            snapshot.begun_at = Some(begun_at - CLOCKS_DIFFER);
            self.place_at.current_at = begun_at;
            (self.looked, self.towards) = (None, None);
            self.fresh = HashMap::new();
            self.waiting.push_back(Waiting::Step(Step::SnapshotStarted));
        }
        let page = within(self.store.tasks_page(self.scope, snapshot.behind)).await?;
        for task in &page {
            if snapshot.begun_at.is_some_and(|begun_at| task.updated_at >= begun_at) {
                self.fresh.insert(task.id, task.version);
            }
        }
        let last = page.last().map(|task| (task.user_id, task.id));
        snapshot.count += i64::try_from(page.len()).unwrap_or_default();
        self.waiting.extend(page.into_iter().map(Step::InSnapshot).map(Waiting::Step));
        if last.is_some() {
            snapshot.behind = last;
        } else {
            self.place_at.position = snapshot.position.clone().unwrap_or_default();
            let completed = Step::SnapshotCompleted(snapshot.count, self.place_at.clone());
            self.waiting.push_back(Waiting::Step(completed));
            self.since = Instant::now();
            self.heard_at = self.since;
            self.fresh_until = Some(self.since);
            self.snapshot = None;
        }
        Ok(())
    }

    /// Reads what is new, or waits a while for it.
    async fn news_read(&mut self) -> Result<(), WatchEnd> {
        let (look, arrived_at) = match self.towards.take() {
            // One look is read to its end before the next: who keeps pace gets there.
            Some(towards) => towards,
            None => {
                let look = self.looks.borrow_and_update().clone();
                let is_new = look.at.is_some_and(|at| at >= self.since) && self.looked != Some(look.number);
                if !is_new {
                    return self.pause().await;
                }
                (look, now())
            }
        };
        self.heard_at = Instant::now();
        let is_kept = now() - self.place_at.current_at < RESUMABLE_FOR;
        if look.position.xmax() < self.place_at.position.xmax() || !is_kept {
            return Err(WatchEnd::PositionUnknown);
        }
        if self.is_untouched(&look) {
            self.place_at.position = look.position.clone();
        } else {
            let read = within(self.store.changes_behind(self.scope, &self.place_at.position, &look.position)).await?;
            // Whoever is told the last of them has seen everything up to the look.
            let ended_at = if read.reached == look.position { arrived_at } else { self.place_at.current_at };
            self.tell(
                read.changes,
                &look.position,
                &Whereabouts { position: read.reached.clone(), current_at: ended_at },
            );
            self.place_at.position = read.reached;
        }
        if self.place_at.position != look.position {
            self.towards = Some((look, arrived_at));
            return Ok(());
        }
        self.looked = Some(look.number);
        self.place_at.current_at = arrived_at;
        if self.fresh_until.is_some_and(|until| look.at.is_some_and(|at| at >= until)) {
            self.fresh = HashMap::new();
            self.fresh_until = None;
        }
        if !self.is_greeted && self.waiting.is_empty() {
            self.push(Step::Heartbeat(self.place_at.clone()));
        }
        Ok(())
    }

    /// Whether nothing of this scope lies between the last look that was read and this one.
    fn is_untouched(&self, look: &Look) -> bool {
        let Some(looked) = self.looked else { return false };
        let last = self.place.shared.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = match self.scope {
            Scope::Of(owner) => last.of_owner.get(&owner).copied().unwrap_or_default(),
            Scope::All => last.of_anybody,
        };
        debug_assert!(looked < look.number);
        looked >= last.unknown_to && changed <= looked
    }

    /// Queues changes, each with where the watcher is then; the last of them are at `end`.
    fn tell(&mut self, changes: Vec<Change>, to: &Position, end: &Whereabouts) {
        let places = after_each(&changes, &self.place_at, to, end);
        for (change, whereabouts) in changes.into_iter().zip(places) {
            let is_known = self.fresh.get(&change.key.task_id).is_some_and(|version| *version >= change.key.version);
            // Who sees everybody's tasks sees it with its new owner.
            let stays = change.key.kind == ChangeKind::Moved && self.scope == Scope::All;
            if !is_known && !stays {
                self.waiting.push_back(Waiting::Change(change, whereabouts));
            }
        }
    }

    /// Waits for a look, for a short time.
    async fn pause(&mut self) -> Result<(), WatchEnd> {
        let _looked = timeout(CHECK, self.looks.changed()).await;
        if self.heard_at.elapsed() >= SILENT_FOR { Err(WatchEnd::Silent) } else { Ok(()) }
    }
}

/// Where whoever has been told each of these changes is: at a position from which nothing is left out, which is as old as what lies
/// behind it. Behind the last of them is `end`.
fn after_each(changes: &[Change], from: &Whereabouts, to: &Position, end: &Whereabouts) -> Vec<Whereabouts> {
    let mut least_behind = vec![i64::MAX; changes.len()];
    for place in (1..changes.len()).rev() {
        least_behind[place - 1] = least_behind[place].min(changes[place].key.xact);
    }
    let (mut whereabouts, mut greatest) = (from.clone(), i64::MIN);
    let mut places = Vec::with_capacity(changes.len());
    for (place, (change, least_behind)) in changes.iter().zip(least_behind).enumerate() {
        greatest = greatest.max(change.key.xact);
        if place + 1 == changes.len() {
            whereabouts = end.clone();
        } else if greatest < least_behind {
            whereabouts.position = from.position.advanced(to, greatest);
        }
        places.push(whereabouts.clone());
    }
    places
}

async fn within<T>(read: impl Future<Output = Result<T, TaskStoreError>>) -> Result<T, TaskStoreError> {
    timeout(READ, read).await.unwrap_or(Err(DatabaseError::Timeout.into()))
}

#[cfg(test)]
mod tests;
