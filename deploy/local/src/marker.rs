//! The marker file that says: this directory was made here, so what is kept in it may be changed and removed.
//!
//! A directory gets its marker before anything else. Where something already has a name that we would use and there is no
//! marker, the directory belongs to somebody else and is never touched. The random id in the marker tells two directories of ours apart.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::files;

/// The name of the marker file.
pub(crate) const NAME: &str = ".local-pair";

/// To whom a directory belongs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is missing, or holds nothing that we would touch: it can be claimed.
    Free,
    /// It has a marker.
    Ours,
    /// It has no marker, but something else in it: the path of one such thing.
    Foreign(PathBuf),
}

/// What a marker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marker {
    /// Random, the same for the life of the directory.
    pub(crate) id: String,
    /// For data that lie elsewhere: the directory that they belong to.
    pub(crate) owner: Option<PathBuf>,
}

/// To whom `directory` belongs, when everything in it would be ours.
///
/// # Errors
/// The system's answer; also when it is there and is no directory.
pub(crate) fn standing(directory: &Path) -> io::Result<Standing> {
    standing_beside(directory, |_| true)
}

/// To whom `directory` belongs, when only the entries that `wanted` names would be ours: others may lie beside them.
///
/// # Errors
/// The system's answer; also when it is there and is no directory.
pub(crate) fn standing_beside(directory: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<Standing> {
    if fs::symlink_metadata(directory.join(NAME)).is_ok_and(|metadata| metadata.is_file()) {
        return Ok(Standing::Ours);
    }
    match fs::read_dir(directory) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry?;
                if wanted(&entry.file_name().to_string_lossy()) {
                    return Ok(Standing::Foreign(entry.path()));
                }
            }
            Ok(Standing::Free)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Standing::Free),
        Err(error) => Err(error),
    }
}

/// Marks `directory`, which must be [`Standing::Free`] or [`Standing::Ours`]; answers its marker, the old one if there is one.
///
/// # Errors
/// The system's answer.
pub(crate) fn claim(directory: &Path) -> io::Result<Marker> {
    let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(directory.join(NAME));
    match new {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // A run that was killed between making and writing it left it empty.
    match read(directory)? {
        Some(marker) => Ok(marker),
        None => {
            let marker = Marker { id: files::random_hex(16)?, owner: None };
            write(directory, &marker)?;
            Ok(marker)
        }
    }
}

/// The marker of `directory`; `None` when there is none with an id.
///
/// # Errors
/// The system's answer.
pub(crate) fn read(directory: &Path) -> io::Result<Option<Marker>> {
    let text = match fs::read(directory.join(NAME)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    let id = value("id").filter(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    Ok(id.map(|id| Marker { id: id.to_owned(), owner: value("owner").map(PathBuf::from) }))
}

/// Writes the marker of a directory of ours.
///
/// # Errors
/// The system's answer.
pub(crate) fn write(directory: &Path, marker: &Marker) -> io::Result<()> {
    let mut text = format!("# Made by `cargo up`, which changes and removes what it keeps here.\nid {}\n", marker.id);
    if let Some(owner) = &marker.owner {
        text.push_str(&format!("owner {}\n", owner.display()));
    }
    files::write_private(&directory.join(NAME), &text)
}

/// Removes the marker and the directory, but only if nothing else is in it; a missing directory is fine.
///
/// # Errors
/// The system's answer.
pub(crate) fn remove_with_directory(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        if entry?.file_name() != NAME {
            // What somebody else has put here stays, and with the marker the directory can be used again.
            return Ok(());
        }
    }
    files::remove_file(&directory.join(NAME))?;
    fs::remove_dir(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_directory_is_claimed_and_the_id_stays() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("d");
        assert_eq!(standing(&directory).unwrap(), Standing::Free);
        fs::create_dir(&directory).unwrap();
        assert_eq!(standing(&directory).unwrap(), Standing::Free);
        let marker = claim(&directory).unwrap();
        fs::write(directory.join("more"), "").unwrap();
        assert_eq!(standing(&directory).unwrap(), Standing::Ours);
        assert_eq!(claim(&directory).unwrap(), marker);
        remove_with_directory(&directory).unwrap();
        assert_eq!(read(&directory).unwrap(), Some(marker), "somebody else's file is there");
        fs::remove_file(directory.join(NAME)).unwrap();
        assert_eq!(standing(&directory).unwrap(), Standing::Foreign(directory.join("more")));
        assert!(standing(&directory.join("more")).is_err(), "a file is no directory");
    }

    #[test]
    fn a_marker_left_empty_by_a_killed_run_gets_its_id() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join(NAME), "").unwrap();
        assert_eq!(read(base.path()).unwrap(), None);
        let marker = claim(base.path()).unwrap();
        assert_eq!(read(base.path()).unwrap(), Some(marker));
    }
}
