//! Where the files of a cluster lie: in the wanted directory, or elsewhere when the user that runs the server cannot reach it.
//!
//! When a directory above the wanted one is closed to that user (for example `/root`), the data lie in
//! `/var/lib/local-pair/<id>` and the wanted directory holds a file `location` that says so. Both have a marker with the same
//! id, so a moved directory finds its data, and nobody else's data are taken for ours. A wanted directory that is removed by
//! hand leaves its data there: it cannot be told from one that was moved.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::PostgresError;
use super::account::Account;
use super::cluster::stop_running;
use crate::files;
use crate::marker::{self, Marker, Standing};

/// The name of the file that says where the data really are.
const POINTER: &str = "location";

/// Where data lie that cannot lie where they were wanted.
const ELSEWHERE: &str = "/var/lib/local-pair";

/// What the pointer of a wanted directory says.
enum Pointer {
    /// There is none.
    Nowhere,
    /// Data that belong to this directory.
    Ours(PathBuf),
    /// Something that must not be used: why.
    Unusable(String),
}

/// Refuses a wanted directory that belongs to somebody else. Touches nothing.
pub(super) fn check(wanted: &Path) -> Result<Standing, PostgresError> {
    match marker::standing(wanted).map_err(|e| PostgresError::file("read", wanted, e))? {
        Standing::Foreign(entry) => Err(PostgresError::InTheWay(format!(
            "{} was not made by `cargo up` and is left alone: move it away or choose another --dir",
            entry.display()
        ))),
        standing => Ok(standing),
    }
}

/// Makes and marks the directory for the cluster that was wanted at `wanted`: itself, or its substitute elsewhere.
pub(super) fn prepare(account: Account, wanted: &Path) -> Result<PathBuf, PostgresError> {
    check(wanted)?;
    files::create_dir(wanted, 0o711).map_err(|e| PostgresError::file("create", wanted, e))?;
    let own = marker::claim(wanted).map_err(|e| PostgresError::file("mark", wanted, e))?;
    match pointer(wanted, &own)? {
        Pointer::Ours(place) => {
            // The directory may have been moved since.
            own_elsewhere(&place, &own, wanted)?;
            return Ok(place);
        }
        Pointer::Unusable(reason) => {
            return Err(PostgresError::InTheWay(format!("{reason}; put the data back or start over with --fresh")));
        }
        Pointer::Nowhere => {}
    }
    let Some(obstacle) = account.obstacle(wanted) else {
        return Ok(wanted.to_owned());
    };
    if wanted.join("data").exists() {
        return Err(PostgresError::InTheWay(format!(
            "{} holds data, but the unprivileged user that runs PostgreSQL cannot pass {}: open it with `chmod o+x` or start over with --fresh",
            wanted.display(),
            obstacle.display()
        )));
    }
    elsewhere(account, wanted, &own)
}

/// Where the cluster wanted at `wanted` really lies, if it is ours.
pub(super) fn find(wanted: &Path) -> Option<PathBuf> {
    let own = marker::read(wanted).ok()??;
    match pointer(wanted, &own).ok()? {
        Pointer::Nowhere => Some(wanted.to_owned()),
        Pointer::Ours(place) => Some(place),
        Pointer::Unusable(_) => None,
    }
}

/// Stops what runs in the cluster wanted at `wanted` and removes its files; other data than ours are left alone.
pub(super) fn remove(wanted: &Path) -> Result<(), PostgresError> {
    if check(wanted)? == Standing::Ours {
        let place = match marker::read(wanted).map_err(|e| PostgresError::file("read", wanted.join(marker::NAME), e))? {
            Some(own) => pointer(wanted, &own)?,
            None => Pointer::Nowhere,
        };
        if let Pointer::Ours(place) = place {
            clear(&place)?;
        }
        clear(wanted)?;
    }
    Ok(())
}

/// Removes the files of a cluster of ours by their names, and the directory if nothing else is in it.
fn clear(place: &Path) -> Result<(), PostgresError> {
    stop_running(place)?;
    let data = place.join("data");
    files::remove_dir_all(&data).map_err(|e| PostgresError::file("remove", &data, e))?;
    for name in ["server.log", "initdb-password", "superuser-password", POINTER] {
        for name in [name, &format!("{name}.new")] {
            let path = place.join(name);
            files::remove_file(&path).map_err(|e| PostgresError::file("remove", &path, e))?;
        }
    }
    marker::remove_with_directory(place).map_err(|e| PostgresError::file("remove", place, e))
}

/// Makes the substitute, marks it with the id of the wanted directory and writes the pointer.
fn elsewhere(account: Account, wanted: &Path, own: &Marker) -> Result<PathBuf, PostgresError> {
    let place = Path::new(ELSEWHERE).join(&own.id);
    // A run that was killed before it wrote the pointer left it free or with our id.
    let standing = marker::standing(&place).map_err(|e| PostgresError::file("read", &place, e))?;
    let id = read(&place)?.map(|marker| marker.id);
    if matches!(standing, Standing::Foreign(_)) || id.is_some_and(|id| id != own.id) {
        return Err(PostgresError::InTheWay(format!(
            "{} is not the data of {}: move it away or choose another --dir",
            place.display(),
            wanted.display()
        )));
    }
    files::create_dir(Path::new(ELSEWHERE), 0o711).map_err(|e| PostgresError::file("create", ELSEWHERE, e))?;
    files::create_dir(&place, 0o711).map_err(|e| PostgresError::file("create", &place, e))?;
    own_elsewhere(&place, own, wanted)?;
    if let Some(obstacle) = account.obstacle(&place) {
        return Err(PostgresError::Cluster(format!(
            "the unprivileged user that runs PostgreSQL can pass neither {} nor {}: choose another --dir",
            wanted.display(),
            obstacle.display()
        )));
    }
    let pointer = wanted.join(POINTER);
    files::write_private(&pointer, &format!("{}\n", place.display()))
        .map_err(|e| PostgresError::file("write", &pointer, e))?;
    Ok(place)
}

/// Marks `place` as the data of `wanted`.
fn own_elsewhere(place: &Path, own: &Marker, wanted: &Path) -> Result<(), PostgresError> {
    let marker = Marker { id: own.id.clone(), owner: Some(wanted.to_owned()) };
    if read(place)?.as_ref() == Some(&marker) {
        return Ok(());
    }
    marker::write(place, &marker).map_err(|e| PostgresError::file("mark", place, e))
}

fn read(directory: &Path) -> Result<Option<Marker>, PostgresError> {
    marker::read(directory).map_err(|e| PostgresError::file("read", directory.join(marker::NAME), e))
}

fn pointer(wanted: &Path, own: &Marker) -> Result<Pointer, PostgresError> {
    let file = wanted.join(POINTER);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Pointer::Nowhere),
        Err(error) => return Err(PostgresError::file("read", file, error)),
    };
    let place = PathBuf::from(text.trim_end_matches('\n'));
    let unusable = |reason: &str| {
        let place = place.display().to_string().escape_debug().to_string();
        Ok(Pointer::Unusable(format!("{} names {place}, which {reason}", file.display())))
    };
    if place.parent() != Some(Path::new(ELSEWHERE)) || place.file_name().is_none() {
        return unusable(&format!("is no directory in {ELSEWHERE}"));
    }
    match read(&place)? {
        None => unusable("is gone"),
        Some(found) if found.id != own.id => unusable("holds the data of another directory"),
        Some(Marker { owner: Some(owner), .. }) if is_another(&owner, wanted, own) => {
            unusable(&format!("holds the data of {}, of which this is a copy", owner.display()))
        }
        Some(_) => Ok(Pointer::Ours(place)),
    }
}

/// Whether `owner` is still there beside `wanted`, with the same id: then one is a copy of the other.
fn is_another(owner: &Path, wanted: &Path, own: &Marker) -> bool {
    let same_id = marker::read(owner).is_ok_and(|marker| marker.is_some_and(|marker| marker.id == own.id));
    let (Ok(one), Ok(other)) = (fs::metadata(owner), fs::metadata(wanted)) else {
        return false;
    };
    same_id && (one.dev(), one.ino()) != (other.dev(), other.ino())
}
