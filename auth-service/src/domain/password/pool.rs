//! The threads that hash passwords: a few of their own, so that a storm of sign-ins stalls nothing else.
//!
//! Each thread reuses its memory blocks. The queue is bounded: when it is full the caller is told at once to come back.
//! A job whose caller went away gives its place back unhashed.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::cost::{HashBounds, HashCost};
use super::phc::{Argon2Hash, Function, PhcError, StoredHash};

/// Length of a new salt, in bytes (RFC 9106, 3.1).
const SALT_LENGTH: usize = 16;
/// Length of a new hash, in bytes.
const OUTPUT_LENGTH: usize = argon2::Params::DEFAULT_OUTPUT_LEN;

/// How the pool is made.
#[derive(Debug, Clone, Copy)]
pub struct HashingPoolConfig {
    /// Cost of new hashes, and of the one that stands in where there is none to verify.
    pub cost: HashCost,
    /// Stored hashes above the ceiling are refused before memory is allocated.
    pub bounds: HashBounds,
    /// Number of threads.
    pub threads: usize,
    /// Most jobs that wait for a thread.
    pub queue: usize,
}

/// Why there is no answer to a hashing job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashingBusy {
    /// The queue is full; worth another try after this time.
    #[error("too many passwords are being checked")]
    Full {
        /// About how long the queue takes.
        retry_after: Duration,
    },
    /// The pool has ended, or Argon2 itself failed.
    #[error("the hashing threads are gone")]
    Gone,
}

/// Hashes and verifies passwords. Cheap to clone; the threads end with the last clone.
#[derive(Clone)]
pub struct HashingPool {
    shared: Arc<Shared>,
    _threads: Arc<Threads>,
}

struct Shared {
    config: HashingPoolConfig,
    queue: Mutex<Queue>,
    work: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
    /// Smoothed time of one hash, for the hint when to try again.
    seconds_per_hash: f64,
}

struct Job {
    password: Zeroizing<Vec<u8>>,
    task: Task,
    since: Instant,
}

enum Task {
    Hash(oneshot::Sender<Option<String>>),
    /// Without a hash: the work of one, and `false`.
    Verify(Option<Box<StoredHash>>, oneshot::Sender<Option<bool>>),
}

/// Ends and joins the threads.
struct Threads {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

impl HashingPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(config: HashingPoolConfig) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { config, queue: Mutex::default(), work: Condvar::new() });
        let mut threads = Threads { shared: Arc::clone(&shared), handles: Vec::new() };
        for index in 0..config.threads.max(1) {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("hashing-{index}"));
            threads.handles.push(thread.spawn(move || shared.work_off())?);
        }
        metrics::gauge!("password_hashing_threads").set(u32::try_from(config.threads).unwrap_or(u32::MAX));
        Ok(Self { shared, _threads: Arc::new(threads) })
    }

    /// The cost of new hashes.
    pub fn cost(&self) -> HashCost {
        self.shared.config.cost
    }

    /// Whether a stored hash stays under the ceiling.
    pub fn may_verify(&self, stored: &StoredHash) -> bool {
        stored.check_ceiling(&self.shared.config.bounds).is_ok()
    }

    /// Whether a hash of another system can be taken over: known, and under the ceiling.
    ///
    /// # Errors
    /// What was expected.
    pub fn importable(&self, text: &str) -> Result<(), PhcError> {
        StoredHash::parse_importable(text, &self.shared.config.bounds).map(|_| ())
    }

    /// A new hash of the configured cost, as a PHC string.
    ///
    /// # Errors
    /// [`HashingBusy`].
    pub async fn hash(&self, password: &str) -> Result<String, HashingBusy> {
        let (sender, answer) = oneshot::channel();
        self.shared.submit(password, Task::Hash(sender))?;
        answer.await.ok().flatten().ok_or(HashingBusy::Gone)
    }

    /// Whether the password is that of the stored hash. Without a hash, or with one above the ceiling, `false` after the
    /// work of one hash of the configured cost: who waits cannot tell the difference.
    ///
    /// # Errors
    /// [`HashingBusy`].
    pub async fn verify(&self, password: &str, stored: Option<StoredHash>) -> Result<bool, HashingBusy> {
        let stored = stored.filter(|hash| self.may_verify(hash)).map(Box::new);
        let (sender, answer) = oneshot::channel();
        self.shared.submit(password, Task::Verify(stored, sender))?;
        answer.await.ok().flatten().ok_or(HashingBusy::Gone)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, password: &str, task: Task) -> Result<(), HashingBusy> {
        let job = Job { password: Zeroizing::new(password.as_bytes().to_vec()), task, since: Instant::now() };
        let mut queue = self.lock();
        if queue.closed {
            return Err(HashingBusy::Gone);
        }
        if queue.jobs.len() >= self.config.queue {
            queue.jobs.retain(Job::is_wanted);
        }
        if queue.jobs.len() >= self.config.queue {
            metrics::counter!("password_hashing_shed_total").increment(1);
            return Err(HashingBusy::Full { retry_after: self.retry_after(&queue) });
        }
        queue.jobs.push_back(job);
        record_depth(&queue);
        drop(queue);
        self.work.notify_one();
        Ok(())
    }

    /// The time the queue takes at the pace so far, at least a second.
    fn retry_after(&self, queue: &Queue) -> Duration {
        let rounds = queue.jobs.len() as f64 / self.config.threads.max(1) as f64;
        Duration::from_secs_f64((rounds * queue.seconds_per_hash).clamp(1.0, 60.0))
    }

    /// A thread's life.
    fn work_off(&self) {
        let mut memory = Vec::new();
        while let Some(job) = self.next_job() {
            metrics::histogram!("password_hashing_wait_seconds").record(job.since.elapsed());
            let start = Instant::now();
            job.run(&self.config, &mut memory);
            let seconds = start.elapsed().as_secs_f64();
            metrics::histogram!("password_hashing_seconds").record(seconds);
            let mut queue = self.lock();
            queue.seconds_per_hash =
                if queue.seconds_per_hash == 0.0 { seconds } else { queue.seconds_per_hash * 0.8 + seconds * 0.2 };
        }
    }

    fn next_job(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            match queue.jobs.pop_front() {
                Some(job) => {
                    record_depth(&queue);
                    if job.is_wanted() {
                        return Some(job);
                    }
                }
                None => queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

fn record_depth(queue: &Queue) {
    metrics::gauge!("password_hashing_queue").set(u32::try_from(queue.jobs.len()).unwrap_or(u32::MAX));
}

impl Job {
    fn is_wanted(&self) -> bool {
        match &self.task {
            Task::Hash(answer) => !answer.is_closed(),
            Task::Verify(_, answer) => !answer.is_closed(),
        }
    }

    fn run(self, config: &HashingPoolConfig, memory: &mut Vec<Block>) {
        // A caller that went away meanwhile is no failure.
        match self.task {
            Task::Hash(answer) => {
                count("hash");
                let _ = answer.send(hash(&self.password, config.cost, memory));
            }
            Task::Verify(Some(stored), answer) => {
                count("verify");
                let _ = answer.send(match &stored.0 {
                    Function::Argon2(hash) => verify(&self.password, hash, memory),
                    Function::Foreign(hash) => {
                        // What scrypt allocates comes in place of the blocks, not beside them.
                        *memory = Vec::new();
                        hash.verify(&self.password)
                    }
                });
                // A stored hash that asks for more than ours must not keep that memory for good.
                let usual = config.cost.params().map_or(0, |params| params.block_count());
                if memory.len() > usual {
                    memory.truncate(usual);
                    memory.shrink_to_fit();
                }
            }
            Task::Verify(None, answer) => {
                count("stand_in");
                let _ = answer.send(hash(&self.password, config.cost, memory).map(|_| false));
            }
        }
    }
}

/// Every computed hash is counted, by what it was for.
fn count(purpose: &'static str) {
    metrics::counter!("password_hashes_total", "purpose" => purpose).increment(1);
}

fn hash(password: &[u8], cost: HashCost, memory: &mut Vec<Block>) -> Option<String> {
    let mut salt = [0; SALT_LENGTH];
    aws_lc_rs::rand::fill(&mut salt).ok()?;
    let params = cost.params().ok()?;
    let mut output = [0; OUTPUT_LENGTH];
    compute(password, Algorithm::Argon2id, Version::V0x13, &params, &salt, &mut output, memory)?;
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params).ok()?,
        salt: Some(Salt::new(&salt).ok()?),
        hash: Some(Output::new(&output).ok()?),
    };
    Some(hash.to_string())
}

fn verify(password: &[u8], stored: &Argon2Hash, memory: &mut Vec<Block>) -> Option<bool> {
    let mut output = Zeroizing::new(vec![0; stored.output.len()]);
    compute(password, stored.algorithm, stored.version, &stored.params, &stored.salt, &mut output, memory)?;
    Some(verify_slices_are_equal(&output, &stored.output).is_ok())
}

fn compute(
    password: &[u8],
    algorithm: Algorithm,
    version: Version,
    params: &argon2::Params,
    salt: &[u8],
    output: &mut [u8],
    memory: &mut Vec<Block>,
) -> Option<()> {
    let blocks = params.block_count();
    if memory.len() < blocks {
        memory.resize(blocks, Block::default());
    }
    Argon2::new(algorithm, version, params.clone())
        .hash_password_into_with_memory(password, salt, output, memory.get_mut(..blocks)?)
        .ok()
}

impl Drop for Threads {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.closed = true;
        queue.jobs.clear();
        drop(queue);
        self.shared.work.notify_all();
        for handle in self.handles.drain(..) {
            // A panicking thread has already been told by the answer that never came.
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests;
