//! Progress of long work: a bar on a terminal, a log line every few seconds elsewhere.

use std::cell::Cell;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a log line tells how far it is.
const EVERY: Duration = Duration::from_secs(5);
/// Work that is over sooner shows no bar.
const SHORT: Duration = Duration::from_millis(500);

/// Shows how far one piece of work is.
pub(crate) struct Progress {
    what: String,
    on_terminal: bool,
    bar: Cell<Option<ProgressBar>>,
    began: Instant,
    told: Cell<Instant>,
}

impl Progress {
    /// Of work that begins now.
    pub(crate) fn new(what: &str, on_terminal: bool) -> Self {
        let now = Instant::now();
        Self { what: what.to_owned(), on_terminal, bar: Cell::new(None), began: now, told: Cell::new(now) }
    }

    /// `done` of `whole` (zero when unknown), and what happens at this moment.
    pub(crate) fn show(&self, done: u64, whole: u64, now: &str) {
        if self.began.elapsed() < SHORT {
            return;
        }
        if self.on_terminal {
            let bar = self.bar.take().unwrap_or_else(|| bar(&self.what));
            bar.set_message(now.to_owned());
            // Both at once: a frame between them would show the new place on the old length.
            bar.update(|state| {
                state.set_len(whole.max(1));
                state.set_pos(done.min(whole));
            });
            self.bar.set(Some(bar));
        } else if self.told.get().elapsed() >= EVERY {
            self.told.set(Instant::now());
            let percent = (done.min(whole) * 100).checked_div(whole).unwrap_or_default();
            tracing::info!(what = self.what, percent, now, "under way");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &str) -> ProgressBar {
    let bar = ProgressBar::new(1);
    // A template of ours: it parses, or the default one serves.
    if let Ok(style) = ProgressStyle::with_template("[{bar:12}] {percent:>3}% {elapsed:>4} {prefix:24!} {wide_msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(what.to_owned());
    bar
}
