//! What is going on, on stderr: a spinner on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};

const GOOD: Style = AnsiColor::Green.on_default();
const CARE: Style = AnsiColor::Yellow.on_default();

/// The steps of a run.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed:.dim}") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar }
    }

    /// A step begins.
    pub(super) fn begin(&self, step: &str) {
        match &self.bar {
            Some(bar) => {
                bar.reset_elapsed();
                bar.set_message(step.to_owned());
                bar.enable_steady_tick(Duration::from_millis(100));
            }
            None => anstream::eprintln!("{step} …"),
        }
    }

    /// The step is done; `result` says with what outcome.
    pub(super) fn done(&self, result: &str) {
        self.pause();
        anstream::eprintln!("{GOOD}✓{GOOD:#} {result}");
    }

    /// A line below a step.
    pub(super) fn detail(&self, text: &str) {
        self.print(&format!("    {text}"));
    }

    /// Something that a person should know.
    pub(super) fn care(&self, text: &str) {
        self.print(&format!("  {CARE}!{CARE:#} {text}"));
    }

    /// Leaves the terminal to somebody else.
    pub(super) fn pause(&self) {
        if let Some(bar) = &self.bar {
            bar.disable_steady_tick();
            bar.finish_and_clear();
        }
    }

    fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| anstream::eprintln!("{line}")),
            None => anstream::eprintln!("{line}"),
        }
    }
}
