//! A guard process ends the children of a parent that was killed: it holds a pipe to the parent and acts when the pipe breaks.
//!
//! Protocol on stdin, one line each: `+<signal> <pid> <start time>` adds a process, `-<pid>` forgets it. At the end of the
//! input the remaining ones get their signal, last added first, and are killed if they have not gone after 10 seconds.

use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::ProcessIdentity;

/// Longer than the drain deadline of a service under no load, shorter than a person's patience.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a process is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndBy {
    /// SIGTERM: the services.
    Terminate,
    /// SIGINT: PostgreSQL's fast shutdown.
    Interrupt,
    /// SIGKILL: test processes, which nobody waits for.
    Kill,
}

impl EndBy {
    fn letter(self) -> char {
        match self {
            Self::Terminate => 'T',
            Self::Interrupt => 'I',
            Self::Kill => 'K',
        }
    }

    fn parse(letter: &str) -> Option<Self> {
        [Self::Terminate, Self::Interrupt, Self::Kill].into_iter().find(|end| letter == end.letter().to_string())
    }

    fn signal(self) -> Signal {
        match self {
            Self::Terminate => Signal::TERM,
            Self::Interrupt => Signal::INT,
            Self::Kill => Signal::KILL,
        }
    }
}

/// The parent's end of a guard. When it is dropped, or the parent dies, the guard ends what it still watches.
#[derive(Debug)]
pub struct Guard {
    process: Mutex<Child>,
    input: Mutex<Option<ChildStdin>>,
}

impl Guard {
    /// Starts the guard: `program` is the `local-pair` binary.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn spawn(program: &Path) -> io::Result<Self> {
        let mut process = Command::new(program)
            .arg("guard")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // The terminal's Ctrl-C and a kill of the parent's group must not end the guard.
            .process_group(0)
            .spawn()?;
        let input = process.stdin.take();
        Ok(Self { process: Mutex::new(process), input: Mutex::new(input) })
    }

    /// Watches the process `pid`; a process that has gone already is not watched.
    pub fn watch(&self, pid: u32, end: EndBy) {
        if let Some(identity) = ProcessIdentity::of(pid) {
            self.send(&format!("+{} {}\n", end.letter(), identity.to_line()));
        }
    }

    /// Forgets a process that was ended in the ordinary way.
    pub fn forget(&self, pid: u32) {
        self.send(&format!("-{pid}\n"));
    }

    fn send(&self, line: &str) {
        if let Ok(mut input) = self.input.lock()
            && let Some(pipe) = input.as_mut()
        {
            // A dead guard leaves only the pid files of the next run: no reason to stop the work.
            let _broken = pipe.write_all(line.as_bytes());
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Ok(mut input) = self.input.lock() {
            drop(input.take());
        }
        if let Ok(mut process) = self.process.lock() {
            let _reaped = process.wait();
        }
    }
}

/// The guard process itself: returns when the input has ended and nothing is left.
pub fn run() {
    let mut watched: Vec<(EndBy, ProcessIdentity)> = Vec::new();
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        if let Some(pid) = line.strip_prefix('-') {
            watched.retain(|(_, process)| process.pid.to_string() != pid);
        } else if let Some((letter, identity)) = line.strip_prefix('+').and_then(|rest| rest.split_once(' '))
            && let (Some(end), Some(identity)) = (EndBy::parse(letter), ProcessIdentity::parse(identity))
        {
            watched.push((end, identity));
        }
    }
    while let Some((end, process)) = watched.pop() {
        process.end(end.signal(), PATIENCE);
    }
}
