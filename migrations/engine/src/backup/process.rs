//! Runs a tool: its output line by line, the end of its complaints, a tick now and then. It never outlives the future.

use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::Child;

/// How often the caller hears from a tool that takes long.
const TICK: Duration = Duration::from_secs(5);
/// Complaints are short; of a flood only the end is kept.
const COMPLAINTS: usize = 4096;
/// On SIGTERM pg_dump cancels its statement in the server, which takes one connection; after this it is killed.
const CANCEL_PATIENCE: Duration = Duration::from_secs(2);

/// Why a tool did not do its work.
#[derive(Debug)]
pub(super) enum Failure {
    /// It could not be started.
    Start(std::io::Error),
    /// It ended badly: how, and the last lines that it wrote to stderr.
    Ended(ExitStatus, String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start(error) => write!(out, "it does not start: {error}"),
            Self::Ended(status, text) if text.is_empty() => write!(out, "it ended with {status} and said nothing"),
            Self::Ended(_, text) => out.write_str(text),
        }
    }
}

/// Runs `command` to its end. Its stdout goes to `line` unless the caller has set it to something else.
pub(super) async fn run(
    mut command: Command,
    stdout: Option<Stdio>,
    mut line: impl FnMut(&str),
    mut tick: impl FnMut(),
) -> Result<(), Failure> {
    use std::os::unix::process::CommandExt as _;
    // A group of its own: Ctrl-C on the terminal is ours to handle, and a tool that is a script ends with its children.
    command.process_group(0).stdin(Stdio::null()).stderr(Stdio::piped()).stdout(stdout.unwrap_or_else(Stdio::piped));
    let mut running = Running(tokio::process::Command::from(command).spawn().map_err(Failure::Start)?);
    let (output, complaints) = (running.0.stdout.take(), running.0.stderr.take());
    let work = async { tokio::join!(lines(output, &mut line), end_of(complaints), running.0.wait()) };
    tokio::pin!(work);
    let mut ticks = tokio::time::interval_at((Instant::now() + TICK).into(), TICK);
    let ((), complaints, status) = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = ticks.tick() => tick(),
        }
    };
    match status.map_err(Failure::Start)? {
        status if status.success() => Ok(()),
        status => Err(Failure::Ended(status, complaints)),
    }
}

/// Hands over each line; bytes of another encoding than UTF-8 are replaced.
async fn lines(output: Option<impl AsyncRead + Unpin>, line: &mut impl FnMut(&str)) {
    let Some(output) = output else { return };
    let mut reader = BufReader::new(output);
    let mut bytes = Vec::new();
    // An unreadable pipe ends the output; how the tool ended tells whether that was its end.
    while reader.read_until(b'\n', &mut bytes).await.is_ok_and(|read| read > 0) {
        line(String::from_utf8_lossy(&bytes).trim_end());
        bytes.clear();
    }
}

/// Reads everything, so that the tool never waits for us, and keeps the end.
async fn end_of(output: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut output) = output else { return String::new() };
    let mut kept = Vec::new();
    let mut bytes = [0_u8; 1024];
    while let Ok(read @ 1..) = output.read(&mut bytes).await {
        kept.extend_from_slice(&bytes[..read]);
        let surplus = kept.len().saturating_sub(COMPLAINTS);
        kept.drain(..surplus);
    }
    let text = String::from_utf8_lossy(&kept);
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" / ")
}

/// A tool that is ended and reaped with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // `None` once it has been waited for: the number may be another process's by now.
        let Some(group) = self.0.id().and_then(|id| Pid::from_raw(id.cast_signed())) else { return };
        let until = Instant::now() + CANCEL_PATIENCE;
        // Signals fail only when the group is gone.
        let _gone = kill_process_group(group, Signal::TERM);
        while !has_ended(group) && Instant::now() < until {
            pause();
        }
        // What is left of the group, before anybody is reaped: until then the number is its own.
        let _gone = kill_process_group(group, Signal::KILL);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < until + CANCEL_PATIENCE {
            pause();
        }
    }
}

/// Whether the process has ended; it is not reaped.
fn has_ended(id: Pid) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::Pid(id), look), Ok(None))
}

#[expect(clippy::disallowed_methods, reason = "a value that is dropped cannot await; bounded by CANCEL_PATIENCE")]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn lines_and_the_end_of_the_complaints() {
        let mut seen = Vec::new();
        let script = "echo one; echo two; yes complaint | head -c 100000 >&2; echo last >&2; exit 3";
        let failure = run(shell(script), None, |line| seen.push(line.to_owned()), || {}).await.unwrap_err();
        assert_eq!(seen, ["one", "two"]);
        let Failure::Ended(status, text) = failure else { panic!("{failure:?}") };
        assert_eq!(status.code(), Some(3));
        assert!(text.ends_with("complaint / last") && text.len() < 2 * COMPLAINTS, "{} bytes: {text}", text.len());
    }

    #[tokio::test]
    async fn a_dropped_run_leaves_no_process() {
        // A child that ignores SIGTERM, below a shell that does not.
        let mut ids = Vec::new();
        let script = "sh -c 'trap \"\" TERM; echo $$; sleep 60' & echo $$; wait";
        let running = run(shell(script), None, |line| ids.push(line.parse::<i32>().unwrap()), || {});
        assert!(tokio::time::timeout(Duration::from_millis(500), running).await.is_err());
        assert_eq!(ids.len(), 2);
        // Whoever adopts the orphan may take a moment to reap it.
        let there = |id: &i32| {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            rustix::process::test_kill_process(Pid::from_raw(*id).unwrap()).is_ok() && !stat.contains(") Z ")
        };
        for _ in 0..100 {
            ids.retain(there);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(ids.is_empty(), "{ids:?} are still there");
    }
}
