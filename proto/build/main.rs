//! Compiles the .proto sources, without protoc: descriptor sets, messages, clients, servers, validation, redaction.

mod redact;
mod rules;
mod validate;

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use prost::Message as _;
use prost_reflect::{DescriptorPool, MessageDescriptor};
use tonic_prost_build::FileDescriptorSet;

/// The packages that are ours: each a directory here, each a module of the crate.
const PACKAGES: [&str; 3] = ["access.v1", "auth.v1", "task.v1"];
/// Where imports are looked up: here, and among the files of others.
const INCLUDES: [&str; 2] = [".", "third_party"];

fn main() -> Result<(), Box<dyn Error>> {
    for watched in ["access", "auth", "task", "third_party", "build"] {
        println!("cargo:rerun-if-changed={watched}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("expected cargo to set OUT_DIR")?);

    let all = compile(&PACKAGES, true)?;
    fs::write(out.join("descriptors_with_source.bin"), &all)?;
    fs::write(out.join("descriptors.bin"), compile(&PACKAGES, false)?)?;
    // One set for each service, so that its reflection does not list the other's RPCs.
    fs::write(out.join("auth_v1.bin"), compile(&["auth.v1"], false)?)?;
    fs::write(out.join("task_v1.bin"), compile(&["task.v1"], false)?)?;

    let pool = DescriptorPool::decode(all.as_slice())?;
    let messages = our_messages(&pool)?;
    fs::write(out.join("validate.rs"), validate::generate(&messages)?)?;
    let secret = redact::holders(&messages)?;
    fs::write(out.join("redact.rs"), redact::generate(&secret))?;

    let mut ours = FileDescriptorSet::decode(all.as_slice())?;
    // The file of buf.validate carries options only; its Rust types would never be used.
    ours.file.retain(|file| file.package() != "buf.validate");
    let mut builder = tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        // RPCs that a service does not answer yet are UNIMPLEMENTED instead of a compile error.
        .generate_default_stubs(true);
    for message in &secret {
        builder = builder.skip_debug([format!(".{}", message.full_name())]);
    }
    builder.compile_fds(ours)?;
    Ok(())
}

/// The encoded descriptor set of some packages and everything they import, custom options included.
fn compile(packages: &[&str], source_info: bool) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut compiler = protox::Compiler::new(INCLUDES)?;
    compiler.include_imports(true);
    compiler.include_source_info(source_info);
    for package in packages {
        compiler.open_files(sources(Path::new(&package.replace('.', "/")))?)?;
    }
    Ok(compiler.encode_file_descriptor_set())
}

/// The .proto files of a directory, in a fixed order.
fn sources(directory: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Every message of ours. Nested ones are refused: the generators know messages by package and name alone.
fn our_messages(pool: &DescriptorPool) -> Result<Vec<MessageDescriptor>, Box<dyn Error>> {
    let ours: Vec<_> = pool.all_messages().filter(|message| PACKAGES.contains(&message.package_name())).collect();
    for message in &ours {
        if message.parent_message().is_some() {
            return Err(format!(
                "{}: expected a message at the top level of its file, not inside another",
                message.full_name()
            )
            .into());
        }
    }
    Ok(ours)
}

/// The path of a message or enum of ours in the generated crate, as in `crate::auth::v1::User`.
fn rust_path(package: &str, name: &str) -> String {
    format!("crate::{}::{name}", package.replace('.', "::"))
}

/// A field's name in Rust: prost puts `r#` before keywords.
fn rust_field(name: &str) -> String {
    // Only those that a field of an API may well be called.
    const KEYWORDS: [&str; 8] = ["as", "enum", "in", "match", "mod", "ref", "type", "use"];
    if KEYWORDS.contains(&name) { format!("r#{name}") } else { name.to_owned() }
}
