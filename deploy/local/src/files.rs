//! Small file helpers: private files, directories with a mode, locks between processes, free ports.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};

/// Writes `text` so that only the owner can read it (0600); a reader never sees half of it.
///
/// # Errors
/// The system's answer.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// Makes `path` with `mode` whatever the umask is; an existing directory keeps its mode.
///
/// # Errors
/// The system's answer; also when `path` is there and is no directory.
pub fn create_dir(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(mode).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Removes a directory tree; a missing one is fine.
///
/// # Errors
/// The system's answer.
pub fn remove_dir_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a file; a missing one is fine.
///
/// # Errors
/// The system's answer.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A file lock (`flock`) that ends with the value or the process, also on `kill -9`.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Waits for the exclusive lock.
    ///
    /// # Errors
    /// The system's answer.
    pub fn exclusive(path: &Path) -> io::Result<Self> {
        let file = Self::open(path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(Self { _file: file })
    }

    /// Waits for the shared lock.
    ///
    /// # Errors
    /// The system's answer.
    pub fn shared(path: &Path) -> io::Result<Self> {
        let file = Self::open(path)?;
        flock(&file, FlockOperation::LockShared)?;
        Ok(Self { _file: file })
    }

    /// The exclusive lock, or `None` when somebody holds it in any mode.
    ///
    /// # Errors
    /// The system's answer.
    pub fn try_exclusive(path: &Path) -> io::Result<Option<Self>> {
        let file = Self::open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn open(path: &Path) -> io::Result<File> {
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
    }
}

/// A port on 127.0.0.1 that was free a moment ago and that this process was not given before.
///
/// # Errors
/// The system has no port to give.
pub fn free_port() -> io::Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..100 {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        if given.insert(port) {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is free"))
}

/// `asked` with port 0 replaced by a free one; fails when the address cannot be bound now.
///
/// # Errors
/// The address is in use or not ours.
pub fn bindable(asked: SocketAddr) -> io::Result<SocketAddr> {
    if asked.port() == 0 {
        return Ok(SocketAddr::new(asked.ip(), free_port()?));
    }
    TcpListener::bind(asked)?.local_addr()
}

/// The path made absolute without asking that it exists, symbolic links of the existing part resolved.
///
/// # Errors
/// The system's answer.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    for ancestor in path.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            return Ok(match path.strip_prefix(ancestor) {
                Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
                _ => real,
            });
        }
    }
    Ok(path)
}

/// The last `count` lines of a text file; empty when it cannot be read.
pub fn tail(path: &Path, count: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(count)).map(|line| (*line).to_owned()).collect()
}

/// `count` random bytes as hex: passwords and tokens that need no quoting anywhere.
///
/// # Errors
/// The system has no randomness.
pub fn random_hex(count: usize) -> io::Result<String> {
    Ok(hex::encode(random_bytes(count)?))
}

/// `count` bytes from the system's generator.
///
/// # Errors
/// The system has no randomness.
pub fn random_bytes(count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no random bytes from the system"))?;
    Ok(bytes)
}
