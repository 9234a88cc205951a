//! The .proto files are the documentation of the API: everything in them has a comment.

use prost_reflect::{DescriptorPool, FileDescriptor};

/// The descriptor set with comments, as the build wrote it.
const WITH_SOURCE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors_with_source.bin"));

/// Field numbers in descriptor.proto: how a source location names a message, enum, service or extension of a file, and
/// what is in it.
const MESSAGE: i32 = 4;
const ENUM: i32 = 5;
const SERVICE: i32 = 6;
const EXTENSION: i32 = 7;
const IN_MESSAGE: [i32; 2] = [2, 8];
const IN_ENUM: [i32; 1] = [2];
const IN_SERVICE: [i32; 1] = [2];

/// Whether a location is that of something that wants a comment.
fn wants_comment(path: &[i32]) -> bool {
    match path {
        [MESSAGE | ENUM | SERVICE | EXTENSION, _] => true,
        [MESSAGE, _, part, _] => IN_MESSAGE.contains(part),
        [ENUM, _, part, _] => IN_ENUM.contains(part),
        [SERVICE, _, part, _] => IN_SERVICE.contains(part),
        _ => false,
    }
}

fn uncommented(file: &FileDescriptor) -> (usize, Vec<String>) {
    let proto = file.file_descriptor_proto();
    let locations = proto.source_code_info.as_ref().map(|info| info.location.as_slice()).unwrap_or_default();
    let wanted: Vec<_> = locations.iter().filter(|location| wants_comment(&location.path)).collect();
    let lacking = wanted
        .iter()
        .filter(|location| location.leading_comments().trim().is_empty())
        .map(|location| format!("{}:{}", file.name(), location.span.first().copied().unwrap_or_default() + 1))
        .collect();
    (wanted.len(), lacking)
}

#[test]
fn everything_has_a_comment() {
    let pool = DescriptorPool::decode(WITH_SOURCE).unwrap();
    let (mut seen, mut lacking) = (0, Vec::new());
    for file in pool.files().filter(|file| ["access.v1", "auth.v1", "task.v1"].contains(&file.package_name())) {
        let (wanted, without) = uncommented(&file);
        seen += wanted;
        lacking.extend(without);
    }
    assert!(
        seen > 400,
        "only {seen} messages, fields, values and RPCs found: did the build keep the source locations?"
    );
    assert_eq!(lacking, Vec::<String>::new(), "comment what begins in these lines");
}

#[test]
fn every_reason_that_a_comment_names_exists() {
    let pool = DescriptorPool::decode(WITH_SOURCE).unwrap();
    for package in ["auth.v1", "task.v1"] {
        let reasons = pool.get_enum_by_name(&format!("{package}.ErrorReason")).unwrap();
        let known = |word: &str| reasons.get_value_by_name(&format!("ERROR_REASON_{word}")).is_some();
        for file in pool.files().filter(|file| file.package_name() == package) {
            let info = file.file_descriptor_proto().source_code_info.clone().unwrap();
            for location in info.location {
                let comment = location.leading_comments();
                let Some((_, errors)) = comment.split_once("Errors:") else {
                    continue;
                };
                for word in errors.split(|letter: char| !letter.is_ascii_uppercase() && letter != '_') {
                    assert!(word.len() < 4 || known(word), "{}: {word} is no reason of {package}", file.name());
                }
            }
        }
    }
}
