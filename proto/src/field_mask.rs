//! Update masks (AIP-134), checked against the descriptor of the resource.
//!
//! A mask names fields of the resource, as in "title" and not "task.title". "*" stands for every writable field.
//! No mask, or an empty one, stands for the writable fields that are set in the resource.

use std::collections::BTreeSet;

use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use prost_types::FieldMask;

use crate::{
    descriptor_pool,
    validate::{MAX_VIOLATIONS, Violation},
};

/// The fields that an update changes: those of the mask, or without a mask those set in `resource`.
///
/// `message` is the full name of the resource's message, as in "task.v1.Task"; `writable` lists its writable fields.
///
/// # Errors
/// As [`check`].
pub fn effective(
    message: &str,
    resource: &impl Message,
    mask: Option<&FieldMask>,
    writable: &[&str],
) -> Result<BTreeSet<String>, Vec<Violation>> {
    match mask.filter(|mask| !mask.paths.is_empty()) {
        Some(mask) => check(message, mask, writable),
        None => Ok(populated(message, resource, writable)),
    }
}

/// The fields that a mask names. The empty mask names none. Naming a field twice does no harm.
///
/// # Errors
/// A violation for each path that is no field of the resource, lies inside a field, or is not writable; its field is the
/// place in the request, as in "update_mask.paths[0]".
pub fn check(message: &str, mask: &FieldMask, writable: &[&str]) -> Result<BTreeSet<String>, Vec<Violation>> {
    let descriptor = descriptor_pool().get_message_by_name(message);
    let mut fields = BTreeSet::new();
    let mut violations = Vec::new();
    for (index, path) in mask.paths.iter().enumerate() {
        match resolve(descriptor.as_ref(), path, writable) {
            Ok(named) => fields.extend(named.iter().map(|field| (*field).to_owned())),
            Err(problem) if violations.len() < MAX_VIOLATIONS => violations.push(Violation {
                field: format!("update_mask.paths[{index}]"),
                description: format!("{problem}; expected one of {}, or * for all of them", writable.join(", ")),
            }),
            Err(_) => {}
        }
    }
    if violations.is_empty() { Ok(fields) } else { Err(violations) }
}

/// The writable fields that a path stands for.
fn resolve<'a>(
    message: Option<&MessageDescriptor>,
    path: &'a str,
    writable: &'a [&'a str],
) -> Result<Vec<&'a str>, &'static str> {
    let known = |name: &str| message.is_some_and(|message| message.get_field_by_name(name).is_some());
    match path.split_once('.') {
        _ if path == "*" => Ok(writable.to_vec()),
        None if known(path) && writable.contains(&path) => Ok(vec![path]),
        None if known(path) => Err("this field is read-only here"),
        Some((first, _)) if known(first) => Err("a path inside a field cannot be set on its own"),
        _ => Err("the resource has no such field"),
    }
}

/// The writable fields that differ from their default.
fn populated(message: &str, resource: &impl Message, writable: &[&str]) -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    let Some(descriptor) = descriptor_pool().get_message_by_name(message) else {
        return fields;
    };
    let mut dynamic = DynamicMessage::new(descriptor);
    if dynamic.transcode_from(resource).is_ok() {
        fields
            .extend(writable.iter().filter(|field| dynamic.has_field_by_name(field)).map(|field| (*field).to_owned()));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::v1::Task;

    const TASK: &str = "task.v1.Task";
    const WRITABLE: [&str; 4] = ["title", "description", "status", "due_date"];

    fn mask(paths: &[&str]) -> FieldMask {
        FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }
    }

    fn set(fields: &[&str]) -> BTreeSet<String> {
        fields.iter().map(|field| (*field).to_owned()).collect()
    }

    #[test]
    fn known_writable_fields_pass_and_duplicates_do_no_harm() {
        let fields = check(TASK, &mask(&["title", "due_date", "title"]), &WRITABLE);
        assert_eq!(fields, Ok(set(&["due_date", "title"])));
        assert_eq!(check(TASK, &mask(&[]), &WRITABLE), Ok(set(&[])));
    }

    #[test]
    fn a_star_is_every_writable_field() {
        assert_eq!(check(TASK, &mask(&["*"]), &WRITABLE), Ok(set(&WRITABLE)));
    }

    #[test]
    fn every_bad_path_is_named_by_its_place() {
        let paths = mask(&["title", "etag", "task.title", "title.x", "", "Title", "due_date.seconds", "*.title"]);
        let violations = check(TASK, &paths, &WRITABLE).unwrap_err();
        let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, (1..=7).map(|index| format!("update_mask.paths[{index}]")).collect::<Vec<_>>());
        assert_eq!(
            violations[0].description,
            "this field is read-only here; expected one of title, description, status, due_date, or * for all of them"
        );
        assert!(violations[1].description.starts_with("the resource has no such field"));
        assert!(violations[2].description.starts_with("a path inside a field"));
        assert!(violations[5].description.starts_with("a path inside a field"));
    }

    #[test]
    fn without_a_mask_the_set_fields_count() {
        let task = Task { id: "x".into(), title: "t".into(), etag: "e".into(), ..Default::default() };
        assert_eq!(effective(TASK, &task, None, &WRITABLE), Ok(set(&["title"])));
        assert_eq!(effective(TASK, &task, Some(&mask(&[])), &WRITABLE), Ok(set(&["title"])));
        let named = effective(TASK, &task, Some(&mask(&["due_date"])), &WRITABLE);
        assert_eq!(named, Ok(set(&["due_date"])));
    }
}
