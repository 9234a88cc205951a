//! The files: how an archive is named, that an unfinished one has another name and goes away, and which are deleted.
//!
//! Only names of exactly one service and database are ever touched.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use chrono::{NaiveDateTime, Utc};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;

use super::failed;
use crate::error::EngineError;

/// UTC, in an order that is the order of the names.
const TIME: &str = "%Y%m%dT%H%M%SZ";
const ARCHIVE: &str = ".dump";
const UNFINISHED: &str = ".dump.partial";
/// A file that nobody has written to for this long belongs to a run that is dead.
const DEAD: Duration = Duration::from_secs(60 * 60);
/// One name a second: how often the next second is waited for.
const NAMES: u32 = 5;
/// Read at once for the checksum.
const BLOCK: usize = 1 << 20;

/// The archives of one service and database.
pub(super) struct Series {
    prefix: String,
}

impl Series {
    pub(super) fn new(service: &str, database: &str) -> Self {
        Self { prefix: format!("{}-{}-", file_safe(service), file_safe(database)) }
    }

    /// Deletes what dead runs left unfinished, but for `mine`.
    pub(super) fn remove_leftovers(&self, directory: &Path, mine: &Path) {
        for path in self.files(directory, UNFINISHED) {
            let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
            let dead = modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > DEAD));
            if dead && path != mine {
                remove(&path, "backup: removed what a dead run left");
            }
        }
    }

    /// Keeps the newest `keep` archives by name, `newest` in any case, and deletes the others.
    pub(super) fn keep_newest(&self, directory: &Path, newest: &Path, keep: NonZeroUsize) {
        let mut others = self.files(directory, ARCHIVE);
        others.retain(|path| path != newest);
        others.sort();
        for path in others.iter().rev().skip(keep.get() - 1) {
            remove(path, "backup: deleted an old archive");
        }
    }

    fn files(&self, directory: &Path, ending: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .filter(|entry| self.names(&entry.file_name(), ending))
            .map(|entry| directory.join(entry.file_name()))
            .collect()
    }

    /// Whether `name` is `<service>-<database>-<time><ending>`, with nothing more in it.
    fn names(&self, name: &OsStr, ending: &str) -> bool {
        let time = name.to_str().and_then(|name| name.strip_prefix(&self.prefix)?.strip_suffix(ending));
        time.is_some_and(|time| {
            NaiveDateTime::parse_from_str(time, TIME).is_ok_and(|at| at.format(TIME).to_string() == time)
        })
    }
}

/// What cannot be deleted is told; the archive is good all the same.
fn remove(path: &Path, done: &str) {
    match fs::remove_file(path) {
        Ok(()) => tracing::info!(path = %path.display(), "{done}"),
        Err(error) => tracing::warn!(path = %path.display(), %error, "backup: an old file cannot be deleted"),
    }
}

/// A name of a database may hold anything: what is not a plain letter is written as in a URL, so that no two names meet.
fn file_safe(name: &str) -> String {
    let mut safe = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"_-.".contains(&byte) {
            safe.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _written = write!(safe, "%{byte:02X}");
        }
    }
    safe
}

/// An archive that is not finished; its file goes away with this value.
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    target: PathBuf,
    published: bool,
}

impl Partial {
    /// Makes the file, readable by its owner alone. This is also the proof that the directory can be written to.
    pub(super) async fn begin(directory: &Path, series: &Series) -> Result<Self, EngineError> {
        let shown = directory.display();
        match fs::metadata(directory) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(failed(format!("--backup-dir {shown} is a file; give a directory"))),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(failed(format!(
                    "--backup-dir {shown} is not there; create it with `mkdir -p {shown}`, or mount it"
                )));
            }
            Err(error) => {
                return Err(failed(format!("--backup-dir {shown} cannot be opened: {error}; let this user pass")));
            }
        }
        for _ in 0..NAMES {
            let stem = format!("{}{}", series.prefix, Utc::now().format(TIME));
            let path = directory.join(format!("{stem}{UNFINISHED}"));
            let target = directory.join(format!("{stem}{ARCHIVE}"));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                // Whoever holds the unfinished name is the only one that may make the archive of this name.
                Ok(file) => {
                    let partial = Self { file, path, target, published: false };
                    if !partial.target.exists() {
                        return Ok(partial);
                    }
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(failed(format!(
                        "--backup-dir {shown} is not writable: {error}; give this user the right to write there, or another directory"
                    )));
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Err(failed(format!(
            "other runs take every name in --backup-dir {shown}; give each cluster a directory of its own"
        )))
    }

    /// Where it is while it is not finished.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where it will be.
    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// The directory of both.
    pub(super) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// The size so far.
    pub(super) fn bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// The file as the output of a tool.
    pub(super) fn stdout(&self) -> Result<Stdio, EngineError> {
        Ok(self.file.try_clone().map_err(|error| self.unusable(&error))?.into())
    }

    /// Waits until everything is on the disk.
    pub(super) async fn sync(&self) -> Result<(), EngineError> {
        let file = self.file.try_clone().map_err(|error| self.unusable(&error))?;
        tokio::fs::File::from_std(file).sync_all().await.map_err(|error| self.unusable(&error))
    }

    /// Gives it its name, for good.
    pub(super) fn publish(mut self) -> Result<PathBuf, EngineError> {
        fs::rename(&self.path, &self.target).map_err(|error| self.unusable(&error))?;
        self.published = true;
        // The name is in the directory, which is a file of its own.
        File::open(self.directory())
            .and_then(|directory| directory.sync_all())
            .map_err(|error| self.unusable(&error))?;
        Ok(self.target.clone())
    }

    fn unusable(&self, error: &std::io::Error) -> EngineError {
        failed(format!("{}: {error}; check the disk, or give another --backup-dir", self.path.display()))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "backup: the unfinished archive cannot be removed");
        }
    }
}

/// Size and SHA-256 of a file, read in pieces.
pub(super) async fn digest(path: &Path) -> Result<(u64, String), EngineError> {
    let unreadable = |error: std::io::Error| failed(format!("{}: {error}; check the disk", path.display()));
    let mut file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let mut block = vec![0_u8; BLOCK];
    let (mut hasher, mut bytes) = (Sha256::new(), 0_u64);
    loop {
        let read = file.read(&mut block).await.map_err(unreadable)?;
        if read == 0 {
            return Ok((bytes, hex::encode(hasher.finalize())));
        }
        hasher.update(&block[..read]);
        bytes += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(directory: &Path, name: &str) {
        fs::write(directory.join(name), "x").unwrap();
    }

    fn left(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_exact_names_are_ours() {
        let series = Series::new("auth", "app");
        let ours = |name: &str| series.names(name.as_ref(), ARCHIVE);
        assert!(ours("auth-app-20261124T120000Z.dump"));
        for other in [
            "auth-app-20261124T120000Z.dump.partial",
            "auth-app2-20261124T120000Z.dump",
            "auth-app-x-20261124T120000Z.dump",
            "auth-app-20261124T120000Z-20261124T120000Z.dump",
            "auth-app-20261399T120000Z.dump",
            "auth-app-2026-11-24.dump",
            "auth-app-.dump",
            "task-app-20261124T120000Z.dump",
            "notes.txt",
        ] {
            assert!(!ours(other), "{other}");
        }
    }

    #[test]
    fn names_of_databases_become_names_of_files() {
        assert_eq!(file_safe("app_1.prod-eu"), "app_1.prod-eu");
        assert_eq!(file_safe("../a b%ö"), "..%2Fa%20b%25%C3%B6");
    }

    #[test]
    fn the_newest_stay_and_others_are_not_touched() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path();
        for name in ["a-d-20250101T000000Z.dump", "a-d-20250102T000000Z.dump", "a-d-20250103T000000Z.dump"] {
            touch(directory, name);
        }
        let others = ["a-d-notes.dump", "a-e-20240101T000000Z.dump", "b-d-20240101T000000Z.dump"];
        others.iter().for_each(|name| touch(directory, name));
        let series = Series::new("a", "d");
        series.keep_newest(directory, &directory.join("a-d-20250103T000000Z.dump"), 2.try_into().unwrap());
        let kept = ["a-d-20250102T000000Z.dump", "a-d-20250103T000000Z.dump"];
        assert_eq!(left(directory), [&kept[..], &others[..]].concat());
        // A clock that was wrong: the archive just made is never the one to go.
        series.keep_newest(directory, &directory.join(kept[0]), 1.try_into().unwrap());
        assert_eq!(left(directory), [&kept[..1], &others[..]].concat());
    }

    #[test]
    fn leftovers_go_when_they_are_old() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path();
        let names = [
            "a-d-20250101T000000Z.dump.partial",
            "a-d-20250102T000000Z.dump.partial",
            "b-d-20250101T000000Z.dump.partial",
        ];
        for name in names {
            touch(directory, name);
            if name != names[1] {
                let hours = std::time::SystemTime::now() - 2 * DEAD;
                OpenOptions::new().write(true).open(directory.join(name)).unwrap().set_modified(hours).unwrap();
            }
        }
        Series::new("a", "d").remove_leftovers(directory, Path::new("none"));
        assert_eq!(left(directory), names[1..]);
    }

    #[tokio::test]
    async fn an_unfinished_file_is_private_never_overwrites_and_goes_away() {
        use std::os::unix::fs::PermissionsExt as _;
        let place = tempfile::tempdir().unwrap();
        let series = Series::new("a", "d");
        let first = Partial::begin(place.path(), &series).await.unwrap();
        assert_eq!(fs::metadata(first.path()).unwrap().permissions().mode() & 0o777, 0o600);
        // In the same second another name must be found.
        let second = Partial::begin(place.path(), &series).await.unwrap();
        assert_ne!(first.path(), second.path());
        let third = { first.publish().unwrap() };
        drop(second);
        assert_eq!(left(place.path()), [third.file_name().unwrap().to_str().unwrap()]);
    }
}
