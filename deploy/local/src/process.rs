//! Processes of other runs: proof that a recorded process is still the one we started, and its orderly end.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A process with its start time: a pid alone may have been given to somebody else meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// Process id.
    pub pid: u32,
    /// The start time as the system tells it; only compared, never read.
    pub started: String,
}

impl ProcessIdentity {
    /// The identity of the living process `pid`; `None` when there is none (a zombie counts as none).
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, started: start_time(pid)? })
    }

    /// Reads what [`Self::to_line`] wrote.
    pub fn parse(line: &str) -> Option<Self> {
        let (pid, started) = line.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, started: started.to_owned() })
    }

    /// One line for a pid file.
    pub fn to_line(&self) -> String {
        format!("{} {}", self.pid, self.started)
    }

    /// Whether this very process still runs.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends `signal` if this very process still runs.
    pub fn signal(&self, signal: Signal) {
        if !self.is_alive() {
            return;
        }
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // An error means that it has gone meanwhile, which is what a signal is sent for.
            let _gone = kill_process(pid, signal);
        }
    }

    /// Waits up to `patience` until the process has gone; tells whether it has.
    pub fn wait_gone(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while self.is_alive() {
            if Instant::now() >= until {
                return false;
            }
            pause(Duration::from_millis(25));
        }
        true
    }

    /// Sends `signal`, waits up to `patience`, then kills.
    pub fn end(&self, signal: Signal, patience: Duration) {
        self.signal(signal);
        if !self.wait_gone(patience) {
            self.signal(Signal::KILL);
            self.wait_gone(Duration::from_secs(2));
        }
    }
}

/// Waits on this thread. The parts that start and end processes are blocking; async callers give them a thread.
#[expect(clippy::disallowed_methods, reason = "only called from blocking code")]
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Field 22 of `/proc/<pid>/stat` (proc(5)); elsewhere what `ps` prints.
fn start_time(pid: u32) -> Option<String> {
    if cfg!(target_os = "linux") {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command name may hold spaces and brackets; the fields begin after the last bracket.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        if matches!(fields.first(), Some(&"Z" | &"X")) {
            return None;
        }
        return fields.get(19).map(|field| (*field).to_owned());
    }
    let output = Command::new("ps").args(["-o", "lstart=", "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// Whether `pid` is a postgres process that works in `data`: the proof before we stop a server found by its pid file.
pub(crate) fn is_postgres_in(pid: u32, data: &Path) -> bool {
    if cfg!(target_os = "linux") {
        return working_directory(pid).is_some_and(|cwd| cwd == data)
            && executable(pid).is_some_and(|name| name.starts_with("postgres"));
    }
    let Ok(output) = Command::new("ps").args(["-o", "command=", "-p", &pid.to_string()]).output() else {
        return false;
    };
    let command = String::from_utf8_lossy(&output.stdout);
    command.contains("postgres") && command.contains(&*data.to_string_lossy())
}

/// Postgres processes that still work in `data` (backends outlive a killed postmaster for a moment). Linux only, else empty.
pub(crate) fn postgres_processes_in(data: &Path) -> Vec<ProcessIdentity> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| is_postgres_in(*pid, data))
        .filter_map(ProcessIdentity::of)
        .collect()
}

fn working_directory(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

fn executable(pid: u32) -> Option<String> {
    let link = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_proven_and_ended() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let identity = ProcessIdentity::of(child.id()).unwrap();
        assert_eq!(ProcessIdentity::parse(&identity.to_line()).as_ref(), Some(&identity));
        let other = ProcessIdentity { started: "1".to_owned(), ..identity.clone() };
        other.signal(Signal::KILL);
        assert!(identity.is_alive(), "a process with another start time must not be signalled");
        identity.end(Signal::TERM, Duration::from_secs(5));
        child.wait().unwrap();
        assert!(!identity.is_alive());
    }
}
