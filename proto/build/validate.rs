//! Writes `impl Validate` for every message from its `buf.validate` rules.
//!
//! The generated code only calls the checks of src/validate/check.rs; what a rule means stands there, in plain Rust.
//! Times and durations are checked without a rule, as their own definitions bound them.

use std::fmt::Write as _;

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

use crate::{
    PACKAGES,
    rules::{self, FieldRules, TextRule, ValueRules},
    rust_field, rust_path,
};

/// The implementations of `Validate`, as Rust source.
pub(crate) fn generate(messages: &[MessageDescriptor]) -> Result<String, String> {
    let mut code = String::new();
    for message in messages {
        rules::refuse_message_rules(message)?;
        let mut body = String::new();
        for field in message.fields() {
            body.push_str(&field_checks(message, &field)?);
        }
        let (at, out) = if body.is_empty() { ("_", "_") } else { ("at", "out") };
        let path = rust_path(message.package_name(), message.name());
        let _ = write!(
            code,
            "impl Validate for {path} {{\n    fn collect(&self, {at}: &Path<'_>, {out}: &mut Vec<Violation>) {{\n{body}    }}\n}}\n"
        );
    }
    Ok(code)
}

/// The checks of one field as a block, or nothing.
fn field_checks(message: &MessageDescriptor, field: &FieldDescriptor) -> Result<String, String> {
    let rules = rules::of(field)?;
    let name = rust_field(field.name());
    if field.is_map() {
        return Err(format!("{}: map fields are not supported", field.full_name()));
    }
    if let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
        if rules.required || rules.value.is_some() {
            return Err(format!("{}: rules on members of a oneof are not supported", field.full_name()));
        }
        let checks = value_checks(field, &rules)?;
        if checks.is_empty() {
            return Ok(String::new());
        }
        let module = rust_path(message.package_name(), &snake(message.name()));
        let variant = format!("{module}::{}::{}", camel(oneof.name()), camel(field.name()));
        return Ok(block(field, &format!("if let Some({variant}(value)) = &self.{} {{\n{checks}}}\n", oneof.name())));
    }
    if field.is_list() {
        return list_checks(field, &name, &rules);
    }
    let checks = value_checks(field, &rules)?;
    if field.supports_presence() {
        let missing = if rules.required { "check::missing(&at, out);\n" } else { "" };
        return Ok(match (checks.is_empty(), missing.is_empty()) {
            (true, true) => String::new(),
            (true, false) => block(field, &format!("if self.{name}.is_none() {{\n{missing}}}\n")),
            (false, true) => block(field, &format!("if let Some(value) = &self.{name} {{\n{checks}}}\n")),
            (false, false) => block(
                field,
                &format!("match &self.{name} {{\nSome(value) => {{\n{checks}}}\nNone => {{ {missing} }}\n}}\n"),
            ),
        });
    }
    if rules.required {
        return Err(format!("{}: `required` is supported on messages and optional fields only", field.full_name()));
    }
    if checks.is_empty() {
        return Ok(String::new());
    }
    let checks = if rules.ignore_if_zero {
        let zero = if field.kind() == Kind::String { "value.is_empty()" } else { "*value == 0" };
        format!("if !({zero}) {{\n{checks}}}\n")
    } else {
        checks
    };
    Ok(block(field, &format!("let value = &self.{name};\n{checks}")))
}

fn list_checks(field: &FieldDescriptor, name: &str, rules: &FieldRules) -> Result<String, String> {
    let no_items = FieldRules::default();
    let mut checks = String::new();
    let items = match &rules.value {
        Some(ValueRules::List { min, max, items }) => {
            if let Some(min) = min {
                let _ = writeln!(checks, "check::min_items(self.{name}.len(), {min}, &at, out);");
            }
            if let Some(max) = max {
                let _ = writeln!(checks, "check::max_items(self.{name}.len(), {max}, &at, out);");
            }
            items.as_ref()
        }
        Some(_) => {
            return Err(format!("{}: expected `repeated` rules on a repeated field", field.full_name()));
        }
        None => &no_items,
    };
    if rules.required || rules.ignore_if_zero || items.required || items.ignore_if_zero {
        return Err(format!("{}: `required` and `ignore` are not supported on lists", field.full_name()));
    }
    let each = value_checks(field, items)?;
    if !each.is_empty() {
        let _ = write!(
            checks,
            "for (index, value) in self.{name}.iter().enumerate() {{\nlet at = at.item(index);\n{each}}}\n"
        );
    }
    Ok(if checks.is_empty() { checks } else { block(field, &checks) })
}

/// The checks of `value`, a reference to one value of the field.
fn value_checks(field: &FieldDescriptor, rules: &FieldRules) -> Result<String, String> {
    let mut code = String::new();
    match (field.kind(), &rules.value) {
        (Kind::Message(message), Some(ValueRules::Duration { gte, lte })) if message.full_name() == DURATION => {
            let _ = writeln!(code, "check::duration(value, {gte:?}, {lte:?}, &at, out);");
        }
        (Kind::Message(message), None) => match message.full_name() {
            "google.protobuf.Timestamp" => code.push_str("check::timestamp(value, &at, out);\n"),
            DURATION => code.push_str("check::duration(value, None, None, &at, out);\n"),
            _ if PACKAGES.contains(&message.package_name()) => code.push_str("value.collect(&at, out);\n"),
            // A field mask is checked against the resource, by field_mask::check.
            "google.protobuf.FieldMask" => {}
            other => {
                return Err(format!("{}: messages of type {other} are not supported", field.full_name()));
            }
        },
        (_, None) => {}
        (Kind::String, Some(ValueRules::Text(rules))) => rules.iter().for_each(|rule| text_check(&mut code, rule)),
        (Kind::Int32, Some(ValueRules::Int { gte })) => {
            let _ = writeln!(code, "check::at_least(i64::from(*value), {gte}, &at, out);");
        }
        (Kind::Int64, Some(ValueRules::Int { gte })) => {
            let _ = writeln!(code, "check::at_least(*value, {gte}, &at, out);");
        }
        (Kind::Enum(descriptor), Some(ValueRules::Enum { not_in })) => enum_check(&mut code, &descriptor, not_in),
        _ => {
            return Err(format!("{}: the rules do not fit the field's type", field.full_name()));
        }
    }
    Ok(code)
}

const DURATION: &str = "google.protobuf.Duration";

fn text_check(code: &mut String, rule: &TextRule) {
    let _ = match rule {
        TextRule::MinLen(bound) => writeln!(code, "check::min_len(value, {bound}, &at, out);"),
        TextRule::MaxLen(bound) => writeln!(code, "check::max_len(value, {bound}, &at, out);"),
        TextRule::MaxBytes(bound) => writeln!(code, "check::max_bytes(value, {bound}, &at, out);"),
        TextRule::Uuid => writeln!(code, "check::uuid(value, &at, out);"),
        TextRule::NotContains(part) => {
            writeln!(code, "check::not_contains(value, {part:?}, &at, out);")
        }
    };
}

fn enum_check(code: &mut String, descriptor: &EnumDescriptor, not_in: &[i32]) {
    let allowed = || descriptor.values().filter(|value| !not_in.contains(&value.number()));
    let numbers: Vec<_> = allowed().map(|value| value.number()).collect();
    let names: Vec<_> = allowed().map(|value| value.name().to_owned()).collect();
    let _ = writeln!(code, "check::one_of(*value, &{numbers:?}, {:?}, &at, out);", names.join(", "));
}

/// The checks with the field's path as `at`.
fn block(field: &FieldDescriptor, checks: &str) -> String {
    format!("{{\nlet at = at.field({:?});\n{checks}}}\n", field.name())
}

/// `watch_tasks_response` for `WatchTasksResponse`, as prost names the module of a message's oneofs.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for (index, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && index > 0 {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// `SnapshotStarted` for `snapshot_started`, as prost names the variants of a oneof.
fn camel(name: &str) -> String {
    name.split('_')
        .flat_map(|word| {
            let mut letters = word.chars();
            letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters)
        })
        .collect()
}
