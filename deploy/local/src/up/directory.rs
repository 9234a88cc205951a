//! The directory of a local pair: what lies where, one run at a time, what is kept between runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::UpError;
use crate::files::{self, FileLock};
use crate::marker::{self, Standing};
use crate::postgres::{Cluster, DatabaseRoles};
use crate::process::ProcessIdentity;

/// The locked directory; the lock ends with the value.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: FileLock,
}

/// Which databases there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// `false` while the databases are being made: a run that ended there left nothing of value.
    pub(super) complete: bool,
    /// The auth service's database.
    pub(super) auth_database: String,
    /// The task service's database; the same one after a restore.
    pub(super) task_database: String,
    /// The dump that the database was made from.
    pub(super) restored_from: Option<PathBuf>,
}

impl State {
    /// A database for each service.
    pub(super) fn fresh() -> Self {
        Self {
            complete: false,
            auth_database: "auth".to_owned(),
            task_database: "task".to_owned(),
            restored_from: None,
        }
    }

    /// One database for both.
    pub(super) fn restored(dump: &Path) -> Self {
        Self {
            complete: false,
            auth_database: "pair".to_owned(),
            task_database: "pair".to_owned(),
            restored_from: Some(dump.to_owned()),
        }
    }

    /// The names of the databases, each once.
    pub(super) fn databases(&self) -> Vec<&str> {
        let mut names = vec![self.auth_database.as_str(), self.task_database.as_str()];
        names.dedup();
        names
    }
}

/// What must be the same in the next run.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Secrets {
    /// Encrypts the signing keys in the database: 32 bytes in base64.
    pub(super) key_encryption_key: String,
    /// Password of the roles that own the databases.
    pub(super) migrator_password: String,
    /// Password of the roles that the services use.
    pub(super) runtime_password: String,
    /// Password of the local administrator.
    pub(super) admin_password: String,
    /// Secret of the service account of task-service, in base64; a directory from before has none.
    #[serde(default)]
    pub(super) task_client_secret: Option<String>,
    /// The administrator's account, chosen when the users are known.
    pub(super) administrator: Option<Administrator>,
}

/// The local administrator's account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Administrator {
    pub(super) email: String,
    pub(super) username: String,
}

impl Secrets {
    fn generate() -> std::io::Result<Self> {
        Ok(Self {
            key_encryption_key: STANDARD.encode(files::random_bytes(32)?),
            migrator_password: files::random_hex(16)?,
            runtime_password: files::random_hex(16)?,
            admin_password: files::random_hex(12)?,
            task_client_secret: None,
            administrator: None,
        })
    }

    /// The roles of one database.
    pub(super) fn roles(&self, database: &str) -> DatabaseRoles {
        DatabaseRoles::named(database, &self.migrator_password, &self.runtime_password)
    }
}

impl Directory {
    /// Makes, marks and locks the directory, and ends what a killed run left running in it. A directory of somebody else is
    /// refused before anything is touched.
    pub(super) fn open(path: &Path) -> Result<Self, UpError> {
        let path = files::absolute(path).map_err(|error| UpError::file("resolve", path, &error))?;
        if path.to_str().is_none() {
            return Err(UpError::usage(format!("--dir {}: the path must be UTF-8", path.display())));
        }
        refuse_foreign(&path)?;
        Cluster::check(&path.join("postgres"))?;
        // Others must pass it when an unprivileged user runs PostgreSQL; the files with secrets are closed one by one.
        files::create_dir(&path, 0o711)
            .map_err(|error| UpError::usage(format!("--dir {}: {error}", path.display())))?;
        marker::claim(&path).map_err(|error| UpError::usage(format!("--dir {}: {error}", path.display())))?;
        let lock_file = path.join("lock");
        let lock = FileLock::try_exclusive(&lock_file)
            .map_err(|error| UpError::usage(format!("--dir {}: {error}", path.display())))?;
        let Some(lock) = lock else {
            let message = format!("another `cargo up` runs in {}: end it or choose another --dir", path.display());
            return Err(UpError::failed(message).with_code(5));
        };
        let directory = Self { path, _lock: lock };
        directory.end_leftovers();
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.path.join("postgres")
    }

    pub(super) fn mail(&self) -> PathBuf {
        self.path.join("mail")
    }

    pub(super) fn env_file(&self) -> PathBuf {
        self.path.join("env.json")
    }

    /// The log of a service.
    pub(super) fn log(&self, service: &str) -> PathBuf {
        self.path.join("log").join(format!("{service}.log"))
    }

    /// Makes the directories of logs, mails and pid files; the mails hold tokens.
    pub(super) fn prepare(&self) -> Result<(), UpError> {
        self.require_marker()?;
        for (name, mode) in [("log", 0o755), ("mail", 0o700), ("run", 0o755)] {
            let path = self.path.join(name);
            files::create_dir(&path, mode).map_err(|error| UpError::file("create", &path, &error))?;
        }
        self.remove_file("env.json")
    }

    /// Removes what earlier runs made here, by name, and only that.
    pub(super) fn clear(&self) -> Result<(), UpError> {
        self.require_marker()?;
        Cluster::check(&self.postgres())?;
        // First: a run that is killed in between must not take the rest for a complete database.
        self.remove_file("state.json")?;
        Cluster::remove(&self.postgres())?;
        for name in ["log", "mail", "run"] {
            let path = self.path.join(name);
            files::remove_dir_all(&path).map_err(|error| UpError::file("remove", &path, &error))?;
        }
        ["env.json", "secrets.json"].iter().try_for_each(|name| self.remove_file(name))
    }

    /// The marker was there when the directory was opened; the build in between may have taken minutes.
    fn require_marker(&self) -> Result<(), UpError> {
        match refuse_foreign(&self.path)? {
            Standing::Ours => Ok(()),
            _ => Err(UpError::usage(format!("{} was removed meanwhile: start again", self.path.display()))),
        }
    }

    /// The state of earlier runs, `None` in a new directory.
    pub(super) fn state(&self) -> Result<Option<State>, UpError> {
        let state = self.read("state.json")?;
        if state.is_none() && Cluster::exists(&self.postgres()) {
            return Err(UpError::usage(format!(
                "{} holds a PostgreSQL, but no state.json says what it is for: choose another --dir or remove it with --fresh",
                self.postgres().display()
            )));
        }
        Ok(state)
    }

    pub(super) fn write_state(&self, state: &State) -> Result<(), UpError> {
        self.write("state.json", state)
    }

    /// The secrets of earlier runs; new ones only as long as no database needs the old ones.
    pub(super) fn secrets(&self, state: Option<&State>) -> Result<Secrets, UpError> {
        if let Some(secrets) = self.read("secrets.json")? {
            return Ok(secrets);
        }
        if state.is_some_and(|state| state.complete) {
            return Err(UpError::failed(format!(
                "{} is gone, so the keys in the database cannot be read: put it back or start over with --fresh",
                self.path.join("secrets.json").display()
            )));
        }
        let secrets = Secrets::generate().map_err(|error| UpError::failed(format!("no random bytes: {error}")))?;
        self.write_secrets(&secrets)?;
        Ok(secrets)
    }

    pub(super) fn write_secrets(&self, secrets: &Secrets) -> Result<(), UpError> {
        self.write("secrets.json", secrets)
    }

    /// Remembers a service's process, so that the next run can end it if this one is killed.
    pub(super) fn remember(&self, service: &str, pid: u32) -> Result<(), UpError> {
        let path = self.pid_file(service);
        let Some(identity) = ProcessIdentity::of(pid) else {
            return Ok(());
        };
        fs::write(&path, identity.to_line()).map_err(|error| UpError::file("write", &path, &error))
    }

    /// Forgets a service's process that has ended.
    pub(super) fn forget(&self, service: &str) {
        // A stale file does no harm: it proves nothing without its process.
        let _missing = fs::remove_file(self.pid_file(service));
    }

    fn end_leftovers(&self) {
        for service in super::SERVICES {
            let recorded = fs::read_to_string(self.pid_file(service)).ok();
            if let Some(process) = recorded.as_deref().and_then(ProcessIdentity::parse) {
                process.end(Signal::TERM, Duration::from_secs(10));
            }
            self.forget(service);
        }
    }

    fn pid_file(&self, service: &str) -> PathBuf {
        self.path.join("run").join(format!("{service}.pid"))
    }

    fn read<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, UpError> {
        let path = self.path.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let parsed = serde_json::from_str(&text);
                parsed.map(Some).map_err(|error| {
                    UpError::failed(format!(
                        "{} is damaged ({error}): put it back or start over with --fresh",
                        path.display()
                    ))
                })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(UpError::file("read", &path, &error)),
        }
    }

    /// Writes a private JSON file.
    pub(super) fn write(&self, name: &str, value: &impl Serialize) -> Result<(), UpError> {
        let path = self.path.join(name);
        let text = serde_json::to_string_pretty(value).map_err(|error| UpError::failed(format!("{name}: {error}")))?;
        files::write_private(&path, &(text + "\n")).map_err(|error| UpError::file("write", &path, &error))
    }

    fn remove_file(&self, name: &str) -> Result<(), UpError> {
        let path = self.path.join(name);
        files::remove_file(&path).map_err(|error| UpError::file("remove", &path, &error))
    }
}

/// Everything that a run makes, changes or removes in its directory.
const NAMES: &[&str] = &["env.json", "state.json", "secrets.json", "lock", "log", "mail", "run", "postgres"];

/// Refuses a directory in which something of somebody else has a name of ours.
fn refuse_foreign(path: &Path) -> Result<Standing, UpError> {
    match marker::standing_beside(path, |name| NAMES.contains(&name))
        .map_err(|error| UpError::usage(format!("--dir {}: {error}", path.display())))?
    {
        Standing::Foreign(entry) => Err(UpError::usage(format!(
            "--dir {}: it holds {} and was not made by `cargo up`, so it is left alone; name another directory",
            path.display(),
            entry.display()
        ))),
        standing => Ok(standing),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Every file below `directory` with its text.
    fn files_in(directory: &Path) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files_in(&path));
            } else {
                found.insert(path.clone(), fs::read_to_string(&path).unwrap());
            }
        }
        found
    }

    fn write(path: PathBuf) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "mine").unwrap();
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused_untouched() {
        for name in ["log/a", "mail/a", "run/a", "postgres/data/a", "env.json", "state.json", "secrets.json", "lock"] {
            let base = tempfile::tempdir().unwrap();
            write(base.path().join(name));
            let before = files_in(base.path());
            let error = Directory::open(base.path()).unwrap_err();
            assert!(error.code == 2 && error.message.contains("was not made by"), "{name}: {error}");
            assert!(
                !error.message.contains('\n') && error.message.contains(name.split('/').next().unwrap()),
                "{error}"
            );
            assert_eq!(files_in(base.path()), before, "{name}");
        }
    }

    /// As when the output of `cargo up` itself goes to a file in its directory.
    #[test]
    fn files_of_other_names_may_lie_beside_ours() {
        let base = tempfile::tempdir().unwrap();
        write(base.path().join("output.txt"));
        let directory = Directory::open(base.path()).unwrap();
        directory.prepare().unwrap();
        directory.clear().unwrap();
        assert!(base.path().join("output.txt").is_file());
    }

    #[test]
    fn a_fresh_start_removes_only_what_is_ours() {
        let base = tempfile::tempdir().unwrap();
        let directory = Directory::open(base.path()).unwrap();
        directory.prepare().unwrap();
        directory.write_state(&State::fresh()).unwrap();
        directory.secrets(None).unwrap();
        write(base.path().join("notes/mine"));
        directory.clear().unwrap();
        let mut left: Vec<_> = fs::read_dir(base.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".local-pair", "lock", "notes"]);

        write(base.path().join("postgres/data/PG_VERSION"));
        directory.write_state(&State::fresh()).unwrap();
        let before = files_in(base.path());
        let error = directory.clear().unwrap_err();
        assert!(error.code == 2 && error.message.contains("postgres/data"), "{error}");
        drop(directory);
        assert_eq!(Directory::open(base.path()).unwrap_err().code, 2);
        assert_eq!(files_in(base.path()), before);
    }

    #[test]
    fn a_directory_exchanged_after_it_was_opened_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("dir");
        let directory = Directory::open(&path).unwrap();
        fs::remove_dir_all(&path).unwrap();
        for name in ["env.json", "log/a"] {
            write(path.join(name));
        }
        let before = files_in(&path);
        assert_eq!(directory.prepare().unwrap_err().code, 2);
        assert_eq!(directory.clear().unwrap_err().code, 2);
        assert_eq!(files_in(&path), before);
    }
}
