//! Build-script half of `migration-engine`: turns a directory of Diesel migrations into Rust source that embeds it.
//!
//! In `build.rs`: `migration_embed::generate("../migrations/auth")?;` and in the crate:
//! `include!(concat!(env!("OUT_DIR"), "/migrations.rs"));`, which defines `MIGRATIONS`, `EXPECTED` and `SIBLINGS`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Writes `$OUT_DIR/migrations.rs` for the migrations in `directory` (relative to the crate's manifest).
///
/// `SIBLINGS` lists the versions of the other sets next to this one: when services share a database they share
/// Diesel's history table, and one service's versions must not look unknown to the other.
///
/// # Errors
/// When the directory cannot be read, a migration lacks `up.sql` or `down.sql`, or two have one version.
pub fn generate(directory: &str) -> io::Result<()> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join(directory).canonicalize()?;
    let out = PathBuf::from(variable("OUT_DIR")?).join("migrations.rs");
    println!("cargo:rerun-if-changed={}", root.display());

    let mut source = String::from("/// The embedded migrations, in the order of their versions.\n");
    source.push_str("pub static MIGRATIONS: &[migration_engine::EmbeddedMigration] = &[\n");
    let directories = migration_directories(&root)?;
    for (at, directory) in directories.iter().enumerate() {
        let name = file_name(directory);
        if at > 0 && version(&file_name(&directories[at - 1])) == version(&name) {
            return Err(io::Error::other(format!("{name}: another migration has the same version")));
        }
        for file in ["up.sql", "down.sql", "metadata.toml"] {
            println!("cargo:rerun-if-changed={}", directory.join(file).display());
        }
        let metadata = directory.join("metadata.toml");
        let metadata = if metadata.exists() { format!("Some({})", include(&metadata)?) } else { "None".to_owned() };
        write_line(
            &mut source,
            format_args!(
                "    migration_engine::EmbeddedMigration {{ directory: {name:?}, up: {}, down: {}, metadata: {metadata} }},",
                include(&directory.join("up.sql"))?,
                include(&directory.join("down.sql"))?,
            ),
        )?;
    }
    source.push_str("];\n\n");

    let expected = root.join("expected.json");
    println!("cargo:rerun-if-changed={}", expected.display());
    write_line(
        &mut source,
        format_args!("/// The committed expected schema.\npub static EXPECTED: &str = {};\n", include(&expected)?),
    )?;
    write_line(
        &mut source,
        format_args!(
            "/// Versions of the sets that may share the database.\npub static SIBLINGS: &[&str] = &{:?};",
            sibling_versions(&root)?
        ),
    )?;
    fs::write(out, source)
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|_| io::Error::other(format!("{name} is not set: call this from a build script")))
}

fn write_line(source: &mut String, line: std::fmt::Arguments<'_>) -> io::Result<()> {
    writeln!(source, "{line}").map_err(io::Error::other)
}

fn include(file: &Path) -> io::Result<String> {
    if !file.is_file() {
        return Err(io::Error::other(format!("{}: missing", file.display())));
    }
    Ok(format!("include_str!({:?})", file.display().to_string()))
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Diesel's version of a directory name: what stands before the first underscore, without dashes.
fn version(directory: &str) -> String {
    directory.split('_').next().unwrap_or_default().replace('-', "")
}

fn migration_directories(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path.is_dir() && !file_name(&path).starts_with('.') {
            found.push(path);
        }
    }
    found.sort_by_key(|path| (version(&file_name(path)), file_name(path)));
    Ok(found)
}

fn sibling_versions(root: &Path) -> io::Result<Vec<String>> {
    let mut versions = Vec::new();
    let Some(parent) = root.parent() else { return Ok(versions) };
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        if path != root && path.join("expected.json").is_file() {
            println!("cargo:rerun-if-changed={}", path.display());
            versions.extend(migration_directories(&path)?.iter().map(|dir| version(&file_name(dir))));
        }
    }
    versions.sort();
    Ok(versions)
}
