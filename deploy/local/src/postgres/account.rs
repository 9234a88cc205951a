//! Which operating-system user runs the server, and where its data can lie so that this user reaches it.
//!
//! PostgreSQL refuses to run as root. Started by root, the server runs as `postgres` or `nobody` and owns its data directory.
//! When a directory above the wanted place is closed to that user (for example `/root`), the data lie in
//! `/var/lib/local-pair/<hash of the wanted place>` and the wanted place holds a file `location` that says so.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::PostgresError;
use crate::files;

/// The name of the file that says where the data really are.
const POINTER: &str = "location";

/// Where data lie that cannot lie where they were wanted.
const ELSEWHERE: &str = "/var/lib/local-pair";

/// The user that runs the server; `None` inside means: as ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account(Option<(u32, u32)>);

impl Account {
    /// Ourselves, or for root the user `postgres`, else `nobody`.
    pub(super) fn choose() -> Result<Self, PostgresError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self(None));
        }
        let users = fs::read_to_string("/etc/passwd").map_err(|e| PostgresError::file("read", "/etc/passwd", e))?;
        ["postgres", "nobody"].iter().find_map(|name| user_ids(&users, name)).map(|ids| Self(Some(ids))).ok_or_else(|| {
            PostgresError::Cluster("PostgreSQL refuses to run as root and there is no user postgres or nobody: create one with `useradd --system postgres`".to_owned())
        })
    }

    /// Makes `command` run as this user, in a directory that it can reach.
    pub(super) fn apply(self, command: &mut Command) {
        command.current_dir("/");
        if let Some((uid, gid)) = self.0 {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives the file or directory to this user.
    pub(super) fn own(self, path: &Path) -> Result<(), PostgresError> {
        match self.0 {
            Some((uid, gid)) => {
                chown(path, Some(uid), Some(gid)).map_err(|e| PostgresError::file("change the owner of", path, e))
            }
            None => Ok(()),
        }
    }

    /// The first directory on the way to `path` (itself included) that this user cannot pass.
    pub(super) fn obstacle(self, path: &Path) -> Option<PathBuf> {
        let (uid, gid) = self.0?;
        let existing = path.ancestors().filter(|ancestor| ancestor.exists()).collect::<Vec<_>>();
        existing.into_iter().rev().find(|directory| !passable(directory, uid, gid)).map(Path::to_owned)
    }

    /// The directory for the cluster that was wanted at `wanted`: itself, or its substitute elsewhere. Makes both.
    pub(super) fn place(self, wanted: &Path) -> Result<PathBuf, PostgresError> {
        files::create_dir(wanted, 0o711).map_err(|e| PostgresError::file("create", wanted, e))?;
        let pointer = wanted.join(POINTER);
        if let Some(place) = pointed(wanted) {
            return Ok(place);
        }
        if self.obstacle(wanted).is_none() {
            return Ok(wanted.to_owned());
        }
        let place = substitute(wanted);
        // Left over from a directory that somebody removed by hand together with its pointer.
        super::cluster::stop_running(&place)?;
        files::remove_dir_all(&place).map_err(|e| PostgresError::file("remove", &place, e))?;
        files::create_dir(Path::new(ELSEWHERE), 0o711).map_err(|e| PostgresError::file("create", ELSEWHERE, e))?;
        files::create_dir(&place, 0o711).map_err(|e| PostgresError::file("create", &place, e))?;
        if let Some(obstacle) = self.obstacle(&place) {
            return Err(PostgresError::Cluster(format!(
                "the unprivileged user that runs PostgreSQL can pass neither {} nor {}: choose another --dir",
                wanted.display(),
                obstacle.display()
            )));
        }
        fs::write(&pointer, format!("{}\n", place.display())).map_err(|e| PostgresError::file("write", &pointer, e))?;
        Ok(place)
    }
}

/// Where the cluster wanted at `wanted` really lies; `wanted` itself when there is no pointer.
pub(super) fn real_place(wanted: &Path) -> PathBuf {
    pointed(wanted).unwrap_or_else(|| wanted.to_owned())
}

/// The place named by the pointer file, only if it is the one that we would have chosen.
fn pointed(wanted: &Path) -> Option<PathBuf> {
    let place = PathBuf::from(fs::read_to_string(wanted.join(POINTER)).ok()?.trim_end());
    (place == substitute(wanted)).then_some(place)
}

fn substitute(wanted: &Path) -> PathBuf {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, wanted.as_os_str().as_encoded_bytes());
    Path::new(ELSEWHERE).join(hex::encode(&digest.as_ref()[..8]))
}

/// Uid and gid of `name` in the text of `/etc/passwd`.
fn user_ids(users: &str, name: &str) -> Option<(u32, u32)> {
    let mut fields = users.lines().find(|line| line.split(':').next() == Some(name))?.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn passable(directory: &Path, uid: u32, gid: u32) -> bool {
    let Ok(metadata) = fs::metadata(directory) else {
        return false;
    };
    let bit = if metadata.uid() == uid {
        0o100
    } else if metadata.gid() == gid {
        0o010
    } else {
        0o001
    };
    metadata.permissions().mode() & bit != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_by_whole_name() {
        let users =
            "root:x:0:0::/root:/bin/sh\npostgres2:x:7:7::/:/x\npostgres:x:101:104:,,,:/var/lib/postgresql:/bin/bash\n";
        assert_eq!(user_ids(users, "postgres"), Some((101, 104)));
        assert_eq!(user_ids(users, "nobody"), None);
    }

    #[test]
    fn a_closed_parent_is_an_obstacle() {
        let base = tempfile::tempdir().unwrap();
        let inner = base.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = Account(Some((4_000_000, 4_000_000)));
        assert_eq!(stranger.obstacle(&inner).as_deref(), Some(base.path()));
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o711)).unwrap();
        assert_eq!(stranger.obstacle(&inner), None);
    }
}
