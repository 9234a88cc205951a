//! Which operating-system user runs the server, and what this user can reach.
//!
//! PostgreSQL refuses to run as root. Started by root, the server runs as `postgres` or `nobody` and owns its data directory.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::PostgresError;

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
