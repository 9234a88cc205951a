//! Reads the `buf.validate` rules of a field. A rule that is not known here is an error, never skipped.
//!
//! To support another rule: add it here, write its check in src/validate/check.rs, emit it in build/validate.rs.

use prost_reflect::{DynamicMessage, ExtensionDescriptor, FieldDescriptor, MessageDescriptor, Value};

/// `IGNORE_IF_ZERO_VALUE` of `buf.validate.Ignore`.
const IGNORE_IF_ZERO_VALUE: i32 = 1;

/// The rules of one field, or of the items of a repeated one.
#[derive(Default)]
pub(crate) struct FieldRules {
    pub(crate) required: bool,
    pub(crate) ignore_if_zero: bool,
    pub(crate) value: Option<ValueRules>,
}

/// The rules of a value by its type.
pub(crate) enum ValueRules {
    /// Rules of a string.
    Text(Vec<TextRule>),
    /// The least value of an int32 or int64.
    Int { gte: i64 },
    /// Numbers that are refused, although the enum has them.
    Enum { not_in: Vec<i32> },
    /// Bounds of a duration, in seconds.
    Duration { gte: Option<i64>, lte: Option<i64> },
    /// Rules of a list and of its items.
    List { min: Option<u64>, max: Option<u64>, items: Box<FieldRules> },
}

/// One rule of a string.
pub(crate) enum TextRule {
    /// Characters, at least.
    MinLen(u64),
    /// Characters, at most.
    MaxLen(u64),
    /// Bytes, at most.
    MaxBytes(u64),
    /// A UUID.
    Uuid,
    /// A text that must not occur.
    NotContains(String),
}

/// The rules of a field; none when it has no option.
pub(crate) fn of(field: &FieldDescriptor) -> Result<FieldRules, String> {
    let pool = field.parent_pool();
    let extension = extension(pool, "buf.validate.field")?;
    let options = field.options();
    if !options.has_extension(&extension) {
        return Ok(FieldRules::default());
    }
    let value = options.get_extension(&extension);
    let rules = value.as_message().ok_or("expected buf.validate.field to be a message")?;
    parse(rules).map_err(|problem| format!("{}: {problem}", field.full_name()))
}

/// Refuses rules on whole messages and oneofs, which we do not use.
pub(crate) fn refuse_message_rules(message: &MessageDescriptor) -> Result<(), String> {
    let pool = message.parent_pool();
    if message.options().has_extension(&extension(pool, "buf.validate.message")?) {
        return Err(format!("{}: rules on a message are not supported", message.full_name()));
    }
    let on_oneof = extension(pool, "buf.validate.oneof")?;
    for oneof in message.oneofs() {
        if oneof.options().has_extension(&on_oneof) {
            return Err(format!("{}: rules on a oneof are not supported", oneof.full_name()));
        }
    }
    Ok(())
}

fn extension(pool: &prost_reflect::DescriptorPool, name: &str) -> Result<ExtensionDescriptor, String> {
    pool.get_extension_by_name(name)
        .ok_or_else(|| format!("expected the option {name} in third_party/buf/validate/validate.proto"))
}

fn parse(rules: &DynamicMessage) -> Result<FieldRules, String> {
    let mut parsed = FieldRules::default();
    for (field, value) in rules.fields() {
        match (field.name(), value) {
            ("required", Value::Bool(required)) => parsed.required = *required,
            ("ignore", Value::EnumNumber(IGNORE_IF_ZERO_VALUE)) => parsed.ignore_if_zero = true,
            ("string", Value::Message(rules)) => parsed.value = Some(text(rules)?),
            ("int32" | "int64", Value::Message(rules)) => parsed.value = Some(int(rules)?),
            ("enum", Value::Message(rules)) => parsed.value = Some(enumeration(rules)?),
            ("duration", Value::Message(rules)) => parsed.value = Some(duration(rules)?),
            ("repeated", Value::Message(rules)) => parsed.value = Some(list(rules)?),
            (name, _) => return Err(unsupported(name)),
        }
    }
    Ok(parsed)
}

fn text(rules: &DynamicMessage) -> Result<ValueRules, String> {
    let mut parsed = Vec::new();
    for (field, value) in rules.fields() {
        parsed.push(match (field.name(), value) {
            ("min_len", Value::U64(bound)) => TextRule::MinLen(*bound),
            ("max_len", Value::U64(bound)) => TextRule::MaxLen(*bound),
            ("max_bytes", Value::U64(bound)) => TextRule::MaxBytes(*bound),
            ("uuid", Value::Bool(true)) => TextRule::Uuid,
            ("not_contains", Value::String(part)) => TextRule::NotContains(part.clone()),
            (name, _) => return Err(unsupported(&format!("string.{name}"))),
        });
    }
    Ok(ValueRules::Text(parsed))
}

fn int(rules: &DynamicMessage) -> Result<ValueRules, String> {
    let mut least = None;
    for (field, value) in rules.fields() {
        match (field.name(), value) {
            ("gte", Value::I32(bound)) => least = Some(i64::from(*bound)),
            ("gte", Value::I64(bound)) => least = Some(*bound),
            (name, _) => return Err(unsupported(&format!("int.{name}"))),
        }
    }
    least.map(|gte| ValueRules::Int { gte }).ok_or_else(|| "expected a bound".to_owned())
}

fn enumeration(rules: &DynamicMessage) -> Result<ValueRules, String> {
    let mut defined_only = false;
    let mut not_in = Vec::new();
    for (field, value) in rules.fields() {
        match (field.name(), value) {
            ("defined_only", Value::Bool(set)) => defined_only = *set,
            ("not_in", Value::List(numbers)) => not_in.extend(numbers.iter().filter_map(Value::as_i32)),
            (name, _) => return Err(unsupported(&format!("enum.{name}"))),
        }
    }
    if defined_only {
        Ok(ValueRules::Enum { not_in })
    } else {
        Err("expected enum.defined_only next to every other rule of an enum".to_owned())
    }
}

fn duration(rules: &DynamicMessage) -> Result<ValueRules, String> {
    let (mut gte, mut lte) = (None, None);
    for (field, value) in rules.fields() {
        let bound = value
            .as_message()
            .filter(|bound| bound.get_field_by_name("nanos").and_then(|nanos| nanos.as_i32()) == Some(0))
            .and_then(|bound| bound.get_field_by_name("seconds")?.as_i64());
        match (field.name(), bound) {
            ("gte", Some(seconds)) => gte = Some(seconds),
            ("lte", Some(seconds)) => lte = Some(seconds),
            (name, _) => return Err(unsupported(&format!("duration.{name}"))),
        }
    }
    Ok(ValueRules::Duration { gte, lte })
}

fn list(rules: &DynamicMessage) -> Result<ValueRules, String> {
    let (mut min, mut max, mut items) = (None, None, FieldRules::default());
    for (field, value) in rules.fields() {
        match (field.name(), value) {
            ("min_items", Value::U64(bound)) => min = Some(*bound),
            ("max_items", Value::U64(bound)) => max = Some(*bound),
            ("items", Value::Message(rules)) => items = parse(rules)?,
            (name, _) => return Err(unsupported(&format!("repeated.{name}"))),
        }
    }
    Ok(ValueRules::List { min, max, items: Box::new(items) })
}

fn unsupported(rule: &str) -> String {
    format!("the buf.validate rule {rule} is not supported: add it to build/rules.rs or leave the check to the service")
}
