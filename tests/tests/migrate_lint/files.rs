//! The files of a migration, as they lie in the repository.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// One directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Migration {
    /// The set it belongs to: `auth` or `task`.
    pub(crate) service: &'static str,
    /// Its name.
    pub(crate) directory: String,
    /// Its files by name.
    pub(crate) files: BTreeMap<String, String>,
}

impl Migration {
    /// Diesel's version: what stands before the first underscore, without dashes.
    pub(crate) fn version(&self) -> String {
        self.directory.split('_').next().unwrap_or_default().replace('-', "")
    }

    /// The text of a file; empty when it is not there.
    pub(crate) fn text(&self, file: &str) -> &str {
        self.files.get(file).map_or("", String::as_str)
    }
}

/// Where the sets are.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../migrations")
}

/// The migrations of a set, ordered by name.
pub(crate) fn read(service: &'static str) -> Vec<Migration> {
    let directory = root().join(service);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
        let path = entry.unwrap().path();
        if !path.is_dir() {
            continue;
        }
        let files = std::fs::read_dir(&path).unwrap().map(|file| {
            let file = file.unwrap();
            (file.file_name().to_string_lossy().into_owned(), std::fs::read_to_string(file.path()).unwrap())
        });
        let directory = path.file_name().unwrap().to_string_lossy().into_owned();
        found.push(Migration { service, directory, files: files.collect() });
    }
    found.sort_by(|one, other| one.directory.cmp(&other.directory));
    found
}
