//! Were all rows kept? Every row from before must be there afterwards, changed only as the decisions on legacy data say, and
//! no row may appear that they do not say either. Written from docs/decisions/legacy-data.md, not from the SQL that is tested.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::Service;
use crate::catalog::Rows;

/// What a comparison found when every row was kept.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Rows compared.
    pub compared: usize,
    /// How many rows were changed, by a part of the sentence with which the run must say so.
    pub changed: BTreeMap<&'static str, u64>,
}

type Row = Map<String, Value>;

/// So many differences are shown; the others are most often of the same kind.
const SHOWN: usize = 4;

const NIL: &str = "00000000-0000-0000-0000-000000000000";
const FIRST: &str = "0001-01-01T00:00:00+00:00";
const LAST: &str = "9999-12-31T23:59:59+00:00";

/// Tables with what tells a row from the others, and the columns that a migration makes when they are not there, with what
/// it sees in them then.
struct Table {
    name: &'static str,
    service: Service,
    key: &'static [&'static str],
    made: &'static [(&'static str, Value)],
    /// The times that are moved into the years 1 to 9999; an infinite one of the second list becomes null.
    times: (&'static [&'static str], &'static [&'static str], &'static str),
}

const NO_TIMES: (&[&str], &[&str], &str) = (&[], &[], "");

const TABLES: &[Table] = &[
    Table {
        name: "public.tasks",
        service: Service::Task,
        key: &["id"],
        made: &[("user_id", Value::Null), ("limits_waived", Value::Bool(false)), ("completed_at", Value::Null)],
        times: (&["created_at", "updated_at"], &["due_date"], "times of tasks outside"),
    },
    Table {
        name: "public.task_requests",
        service: Service::Task,
        key: &["user_id", "request_id"],
        made: &[],
        times: NO_TIMES,
    },
    Table {
        name: "public.users",
        service: Service::Auth,
        key: &["id"],
        made: &[("role_id", Value::Null)],
        times: (&["created_at", "updated_at"], &["last_login_at"], "times of users outside"),
    },
    Table {
        name: "public.roles",
        service: Service::Auth,
        key: &["id"],
        made: &[("display_name", Value::Null), ("is_active", Value::Bool(true)), ("is_system", Value::Bool(false))],
        times: (&["created_at", "updated_at"], &[], "times of roles outside"),
    },
    Table {
        name: "public.role_permissions",
        service: Service::Auth,
        key: &["role_id", "permission"],
        made: &[],
        times: NO_TIMES,
    },
    Table { name: "public.sessions", service: Service::Auth, key: &["id"], made: &[], times: NO_TIMES },
    Table {
        name: "public.refresh_tokens",
        service: Service::Auth,
        key: &["id"],
        made: &[("session_id", Value::Null)],
        times: (&["expires_at", "created_at", "updated_at"], &[], "times of refresh tokens outside"),
    },
    Table {
        name: "public.password_reset_tokens",
        service: Service::Auth,
        key: &["id"],
        made: &[("hash_algorithm", Value::Null)],
        times: (&["expires_at", "created_at", "updated_at"], &[], "times of password-reset tokens outside"),
    },
    Table { name: "public.signing_keys", service: Service::Auth, key: &["kid"], made: &[], times: NO_TIMES },
];

/// Compares the rows before and after runs of `services`. Tables that these do not own must hold exactly what they held;
/// of the history no version may be lost; the engine's ledger is its own.
///
/// # Errors
/// What is lost, changed or made up, in words.
pub fn compare(before: &Rows, after: &Rows, services: &[Service]) -> Result<Kept, Vec<String>> {
    let mut wrong = Vec::new();
    let mut kept = Kept::default();
    for (name, rows) in before {
        let Some(there) = after.get(name) else {
            wrong.push(format!("table {name} with {} rows is gone", rows.len()));
            continue;
        };
        kept.compared += rows.len();
        if name.starts_with("public.__migration_") {
            continue;
        }
        if name == "public.__diesel_schema_migrations" {
            let versions = |rows: &[Value]| rows.iter().map(|row| row["version"].clone()).collect::<Vec<_>>();
            let (was, is) = (versions(rows), versions(there));
            wrong.extend(was.iter().filter(|version| !is.contains(version)).map(|v| format!("history lost {v}")));
            continue;
        }
        match TABLES.iter().find(|table| table.name == name && services.contains(&table.service)) {
            Some(table) => compare_table(table, before, after, &mut kept, &mut wrong),
            None if rows != there => wrong.push(format!("rows of {name}, which is not the run's, were changed")),
            None => {}
        }
    }
    for table in TABLES.iter().filter(|table| services.contains(&table.service) && !before.contains_key(table.name)) {
        let appeared = after.get(table.name).into_iter().flatten().map(|row| row.as_object().expect("a row"));
        wrong.extend(appeared.filter(|row| !may_appear(table, row, before)).map(|row| made_up(table, row)));
    }
    if wrong.is_empty() {
        return Ok(kept);
    }
    let count = wrong.len();
    wrong.truncate(SHOWN);
    if count > SHOWN {
        wrong.push(format!("… and {} more", count - SHOWN));
    }
    Err(wrong)
}

fn compare_table(table: &Table, before: &Rows, after: &Rows, kept: &mut Kept, wrong: &mut Vec<String>) {
    let mut there: HashMap<String, Vec<&Row>> = HashMap::new();
    let has = |column: &str| before[table.name].first().is_none_or(|row| row.get(column).is_some());
    let key: Vec<&str> = table.key.iter().copied().filter(|column| has(column)).collect();
    let key_of = |row: &Row| key.iter().map(|column| row.get(*column).unwrap_or(&Value::Null).to_string()).collect();
    for row in after[table.name].iter().map(|row| row.as_object().expect("a row")) {
        there.entry(key_of(row)).or_default().push(row);
    }
    let member = after.get("public.roles").into_iter().flatten().find(|role| role["name"] == "member");
    for row in before[table.name].iter().map(|row| row.as_object().expect("a row")) {
        let wanted = wanted(table, row, member, &mut kept.changed);
        let candidates = there.entry(key_of(row)).or_default();
        match candidates.iter().position(|candidate| fits(table, row, &wanted, candidate)) {
            Some(at) => {
                candidates.swap_remove(at);
            }
            None => wrong.push(format!(
                "{}: a row was lost or changed; before {}; wanted {}; with that key there is {}",
                table.name,
                json!(row),
                json!(wanted),
                json!(candidates)
            )),
        }
    }
    let left = there.into_values().flatten().filter(|row| !may_appear(table, row, before));
    wrong.extend(left.map(|row| made_up(table, row)));
}

fn made_up(table: &Table, row: &Row) -> String {
    format!("{}: a row that nobody wrote: {}", table.name, json!(row))
}

/// Whether `candidate` is `wanted`. A login key that was missing may be any, or none beside an older account's.
fn fits(table: &Table, row: &Row, wanted: &Row, candidate: &Row) -> bool {
    wanted.iter().all(|(column, value)| {
        let key = table.name == "public.users" && matches!(column.as_str(), "email_key" | "username_key");
        let free = key && row.get(column).is_none_or(Value::is_null);
        free || candidate.get(column) == Some(value)
    })
}

/// The row as it must be afterwards, and which changes were made on the way.
fn wanted(table: &Table, row: &Row, member: Option<&Value>, changed: &mut BTreeMap<&'static str, u64>) -> Row {
    let mut wanted = row.clone();
    for (column, value) in table.made {
        wanted.entry((*column).to_owned()).or_insert_with(|| value.clone());
    }
    let mut count = |what: &'static str| *changed.entry(what).or_default() += 1;
    if move_times(table, &mut wanted) {
        count(table.times.2);
    }
    match table.name {
        "public.tasks" => {
            if wanted.get("status") == Some(&json!("pending")) {
                wanted.insert("status".to_owned(), json!("todo"));
                count("'pending'");
            }
            if wanted["user_id"].is_null() {
                wanted.insert("user_id".to_owned(), json!(NIL));
                count("without an owner");
            }
            if wanted["limits_waived"] != true && beyond_limits(&wanted) {
                wanted.insert("limits_waived".to_owned(), json!(true));
                count("longer than today's limits");
            }
            if wanted.get("status") == Some(&json!("completed")) && wanted["completed_at"].is_null() {
                let changed = wanted.get("updated_at").cloned().unwrap_or_default();
                wanted.insert("completed_at".to_owned(), changed);
                count("a time of completion");
            }
        }
        "public.users" if wanted["role_id"].is_null() => {
            wanted.insert("role_id".to_owned(), member.map_or(Value::Null, |role| role["id"].clone()));
            count("without a role");
        }
        "public.roles" => adopt_role(&mut wanted, &mut count),
        "public.refresh_tokens" if wanted["session_id"].is_null() => {
            wanted.insert("session_id".to_owned(), row.get("id").cloned().unwrap_or_default());
            count("Tied legacy refresh tokens");
        }
        "public.password_reset_tokens" if wanted["hash_algorithm"].is_null() => {
            let clear = wanted.get("token_hash").and_then(Value::as_str).unwrap_or_default().to_owned();
            wanted.insert("hash_algorithm".to_owned(), json!("sha256"));
            wanted.insert("is_used".to_owned(), json!(true));
            let hash: String = Sha256::digest(clear).iter().map(|byte| format!("{byte:02x}")).collect();
            wanted.insert("token_hash".to_owned(), json!(hash));
            count("stored in clear");
        }
        _ => {}
    }
    wanted
}

fn adopt_role(role: &mut Row, count: &mut impl FnMut(&'static str)) {
    if role["display_name"].is_null() {
        role.insert("display_name".to_owned(), role.get("name").cloned().unwrap_or_default());
        count("without a display name");
    }
    let seed = match role.get("name").and_then(Value::as_str) {
        Some("admin") => Some(("Administrator", "May do everything")),
        Some("member") => Some(("Member", "May manage their own tasks and profile")),
        _ => None,
    };
    if let (Some((name, description)), false) = (seed, role["is_system"] == true) {
        role.insert("display_name".to_owned(), json!(name));
        role.insert("description".to_owned(), json!(description));
        role.insert("is_active".to_owned(), json!(true));
        role.insert("is_system".to_owned(), json!(true));
        count("as system roles");
    }
    if role["is_system"] == true && role["is_active"] == false {
        role.insert("is_active".to_owned(), json!(true));
        count("Reactivated");
    }
}

fn beyond_limits(task: &Row) -> bool {
    let length = |column: &str| task.get(column).and_then(Value::as_str).map(|text| text.chars().count());
    length("title").is_some_and(|length| !(1..=200).contains(&length)) || length("description").unwrap_or(0) > 10_000
}

fn move_times(table: &Table, row: &mut Row) -> bool {
    let (bounded, nullable, _) = table.times;
    let mut moved = false;
    for column in bounded.iter().chain(nullable) {
        let Some(bound) = row.get(*column).and_then(Value::as_str).and_then(bound) else { continue };
        let infinite = row[*column].as_str().is_some_and(|text| text.ends_with("infinity"));
        let value = if infinite && nullable.contains(column) { Value::Null } else { json!(bound) };
        row.insert((*column).to_owned(), value);
        moved = true;
    }
    moved
}

/// The bound to which a time outside the years 1 to 9999 is moved.
fn bound(time: &str) -> Option<&'static str> {
    let year_digits = time.find('-').unwrap_or(0);
    match time {
        "-infinity" => Some(FIRST),
        "infinity" => Some(LAST),
        _ if time.ends_with(" BC") => Some(FIRST),
        _ if year_digits > 4 => Some(LAST),
        _ => None,
    }
}

/// The system roles where they were missing, and a session for each refresh token that had none.
fn may_appear(table: &Table, row: &Row, before: &Rows) -> bool {
    let rows = |name: &str| before.get(name).into_iter().flatten();
    match table.name {
        "public.roles" => {
            let seed = matches!(row.get("name").and_then(Value::as_str), Some("admin" | "member"));
            seed && !rows(table.name).any(|role| Some(&role["name"]) == row.get("name"))
        }
        "public.sessions" => rows("public.refresh_tokens")
            .any(|token| Some(&token["id"]) == row.get("id") && token["session_id"].is_null()),
        _ => false,
    }
}

/// Compares what the run said it changed with what was changed. Login keys are left out: the comparison does not count them.
///
/// # Errors
/// Which change was not said, or not with this number of rows.
pub fn said(kept: &Kept, data_changes: &Value) -> Result<(), Vec<String>> {
    let changes = data_changes.as_array().expect("data_changes is a list");
    let mut wrong = Vec::new();
    for (part, rows) in &kept.changed {
        let said: u64 = changes
            .iter()
            .filter(|change| change["description"].as_str().is_some_and(|text| text.contains(part)))
            .filter_map(|change| change["rows"].as_u64())
            .sum();
        if said != *rows {
            wrong.push(format!("{rows} rows were changed ({part}), data_changes says {said}: {data_changes}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(rows: &[Value]) -> Rows {
        Rows::from([("public.tasks".to_owned(), rows.to_vec())])
    }

    fn task(id: u8, status: &str, owner: Value) -> Value {
        json!({"id": id, "title": "t", "status": status, "user_id": owner, "limits_waived": false, "completed_at": null})
    }

    #[test]
    fn what_the_decisions_say_is_kept_and_counted() {
        let before = tasks(&[task(1, "pending", json!("u")), task(2, "todo", Value::Null)]);
        let after = tasks(&[task(1, "todo", json!("u")), task(2, "todo", json!(NIL))]);
        let kept = compare(&before, &after, &[Service::Task]).unwrap();
        assert_eq!((kept.compared, kept.changed.len()), (2, 2));
        let change = |part: &str, rows: u64| json!({"description": format!("Tasks {part}"), "rows": rows});
        assert!(said(&kept, &json!([change("'pending'", 1), change("without an owner", 1)])).is_ok());
        assert!(said(&kept, &json!([change("'pending'", 1), change("without an owner", 2)])).is_err());
        assert!(said(&kept, &json!([change("'pending'", 1)])).is_err());
        // A run of the other service has no business here.
        assert!(compare(&before, &after, &[Service::Auth]).is_err());
    }

    #[test]
    fn lost_changed_and_made_up_rows_are_seen() {
        let before = tasks(&[task(1, "todo", json!("u")), task(2, "todo", json!("u"))]);
        let wrong = [
            tasks(&[task(1, "todo", json!("u"))]),
            tasks(&[task(1, "todo", json!("u")), task(2, "completed", json!("u"))]),
            tasks(&[task(1, "todo", json!("u")), task(1, "todo", json!("u"))]),
            tasks(&[task(1, "todo", json!("u")), task(2, "todo", json!("u")), task(3, "todo", json!("u"))]),
            tasks(&[task(1, "todo", json!("u")), json!({"id": 2, "title": "t"})]),
            Rows::new(),
        ];
        assert!(compare(&before, &before, &[Service::Task]).is_ok());
        for after in wrong {
            assert!(compare(&before, &after, &[Service::Task]).is_err(), "{after:?}");
        }
    }

    #[test]
    fn times_are_bounded_as_the_migrations_bound_them() {
        for (time, wanted) in [
            ("infinity", Some(LAST)),
            ("-infinity", Some(FIRST)),
            ("0044-03-15T00:00:00+00:00 BC", Some(FIRST)),
            ("12000-01-01T00:00:00+00:00", Some(LAST)),
            ("2025-01-01T00:00:00+00:00", None),
        ] {
            assert_eq!(bound(time), wanted, "{time}");
        }
    }
}
