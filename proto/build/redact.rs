//! Writes `Debug` for messages with fields marked `debug_redact`, so that no log line can show a secret by accident.

use std::fmt::Write as _;

use prost_reflect::{FieldDescriptor, MessageDescriptor, Value};

use crate::{rust_field, rust_path};

/// The messages that have a field with `debug_redact`.
pub(crate) fn holders(messages: &[MessageDescriptor]) -> Result<Vec<MessageDescriptor>, String> {
    let mut found = Vec::new();
    for message in messages {
        if !message.fields().any(|field| is_secret(&field)) {
            continue;
        }
        if message.oneofs().any(|oneof| !oneof.is_synthetic()) {
            return Err(format!("{}: debug_redact in a message with a oneof is not supported", message.full_name()));
        }
        found.push(message.clone());
    }
    Ok(found)
}

/// `impl Debug` for each of these messages.
pub(crate) fn generate(messages: &[MessageDescriptor]) -> String {
    let mut code = String::new();
    for message in messages {
        let path = rust_path(message.package_name(), message.name());
        let _ = write!(
            code,
            "impl core::fmt::Debug for {path} {{\n    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {{\n        f.debug_struct({:?})\n",
            message.name()
        );
        for field in message.fields() {
            let shown = if is_secret(&field) {
                "\"[redacted]\"".to_owned()
            } else {
                format!("self.{}", rust_field(field.name()))
            };
            let _ = writeln!(code, "            .field({:?}, &{shown})", field.name());
        }
        code.push_str("            .finish()\n    }\n}\n");
    }
    code
}

fn is_secret(field: &FieldDescriptor) -> bool {
    field.options().get_field_by_name("debug_redact").is_some_and(|value| *value == Value::Bool(true))
}
