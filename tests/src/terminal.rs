//! Runs `migrate` as a person does: its output goes to a terminal, here one without a window.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::programs::Service;
use crate::server::command;

/// Wide enough that no line of the tests is cut.
const WINDOW: Winsize = Winsize { ws_row: 50, ws_col: 240, ws_xpixel: 0, ws_ypixel: 0 };
/// No run of a test takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a command that ran on a terminal answered.
#[derive(Debug, Clone)]
pub struct TerminalRun {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// All that it wrote to the terminal, with control sequences.
    pub written: String,
}

impl TerminalRun {
    /// What was written without control sequences: every frame of a bar is a line of its own.
    pub fn lines(&self) -> Vec<String> {
        let plain = without_escapes(&self.written);
        plain.split(['\r', '\n']).filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
    }
}

/// Runs `<service> migrate <arguments>` on the database at `url`, its stdout and stderr on a terminal; `environment` wins
/// over what a terminal sets.
pub async fn run_on_terminal(
    service: Service,
    url: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> TerminalRun {
    let (mine, its) = terminal().expect("the machine has terminals");
    let all = [&[("DATABASE_URL", url), ("TERM", "xterm-256color")], environment].concat();
    let mut command = tokio::process::Command::from(command(service, &[&["migrate"], arguments].concat(), &all));
    command.stdin(Stdio::null()).stdout(its.try_clone().expect("a second handle")).stderr(its).kill_on_drop(true);
    let mut child = command.spawn().expect("the program runs");
    // The command holds the program's side of the terminal, which ends for the reader with the last holder.
    drop(command);
    let reader = tokio::task::spawn_blocking(move || read_all(mine));
    let status = tokio::time::timeout(PATIENCE, child.wait()).await;
    let status = status.unwrap_or_else(|_| panic!("migrate did not end within {PATIENCE:?}")).expect("its status");
    TerminalRun { code: status.code().unwrap_or(-1), written: reader.await.expect("the reader runs") }
}

fn terminal() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let mine = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&mine)?;
    unlockpt(&mine)?;
    let name = ptsname(&mine, Vec::new())?;
    let its = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    tcsetwinsize(&its, WINDOW)?;
    Ok((mine, its))
}

/// Reads until the other side is closed, which Linux tells as an error.
fn read_all(terminal: OwnedFd) -> String {
    let (mut terminal, mut written, mut part) = (File::from(terminal), Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = terminal.read(&mut part) {
        written.extend_from_slice(&part[..read]);
    }
    String::from_utf8_lossy(&written).into_owned()
}

/// Leaves out control sequences: from ESC `[` to the letter that ends it.
fn without_escapes(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| {
        plain + part.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).get(1..).unwrap_or_default()
    })
}
