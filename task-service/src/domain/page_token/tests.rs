//! What a page token must not let through.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::domain::list::{Filter, Order};
use crate::domain::text::SearchText;

fn tokens() -> PageTokens {
    PageTokens::from_secret(&[7; 32]).unwrap()
}

fn caller() -> UserId {
    UserId(Uuid::from_u128(1))
}

fn query() -> ListQuery {
    ListQuery {
        filter: Filter {
            scope: Scope::Of(caller()),
            statuses: vec![],
            title_contains: None,
            description_contains: None,
            due_after: None,
            due_before: None,
            created_after: None,
            created_before: None,
        },
        order: Order { field: OrderField::DueDate, direction: Direction::Ascending },
    }
}

fn cursor() -> Cursor {
    Cursor { key: CursorKey::Time(DateTime::from_timestamp_micros(-5).unwrap()), id: TaskId(Uuid::from_u128(7)) }
}

#[test]
fn every_kind_of_key_comes_back() {
    let keys = [
        (OrderField::DueDate, CursorKey::NoTime),
        (OrderField::DueDate, cursor().key),
        (OrderField::UpdatedAt, cursor().key),
        (OrderField::Title, CursorKey::Title("ß 🦀".to_owned())),
        (OrderField::Title, CursorKey::Title(String::new())),
        (OrderField::Status, CursorKey::Status(TaskStatus::Cancelled)),
    ];
    for (field, key) in keys {
        let mut query = query();
        query.order.field = field;
        let cursor = Cursor { key, id: TaskId::new() };
        let token = tokens().seal(caller(), &query, &cursor);
        assert_eq!(tokens().open(caller(), &query, &token), Ok(cursor));
    }
}

#[test]
fn a_token_is_bound_to_its_list_and_its_caller() {
    let token = tokens().seal(caller(), &query(), &cursor());
    let time = DateTime::from_timestamp_micros(0);
    let text = || SearchText::parse("a").unwrap();
    type Change = fn(&mut ListQuery, Option<DateTime<Utc>>, Option<SearchText>);
    let others: [Change; 11] = [
        |q, _, _| q.filter.scope = Scope::All,
        |q, _, _| q.filter.scope = Scope::Of(UserId(Uuid::from_u128(2))),
        |q, _, _| q.filter.statuses = vec![TaskStatus::Todo],
        |q, _, text| q.filter.title_contains = text,
        |q, _, text| q.filter.description_contains = text,
        |q, time, _| q.filter.due_after = time,
        |q, time, _| q.filter.due_before = time,
        |q, time, _| q.filter.created_after = time,
        |q, time, _| q.filter.created_before = time,
        |q, _, _| q.order.field = OrderField::CreatedAt,
        |q, _, _| q.order.direction = Direction::Descending,
    ];
    for (index, change) in others.iter().enumerate() {
        let mut other = query();
        change(&mut other, time, text());
        assert_ne!(other, query(), "change {index} changes nothing");
        assert_eq!(tokens().open(caller(), &other, &token), Err(PageTokenInvalid), "change {index}");
    }
    assert_eq!(tokens().open(UserId(Uuid::from_u128(2)), &query(), &token), Err(PageTokenInvalid));
    assert!(tokens().open(caller(), &query(), &token).is_ok());
}

#[test]
fn a_forged_token_is_refused() {
    let token = tokens().seal(caller(), &query(), &cursor());
    let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
    for place in 0..bytes.len() {
        let mut forged = bytes.clone();
        forged[place] ^= 1;
        let forged = URL_SAFE_NO_PAD.encode(forged);
        assert_eq!(tokens().open(caller(), &query(), &forged), Err(PageTokenInvalid), "byte {place}");
    }
    for length in 0..bytes.len() {
        let cut = URL_SAFE_NO_PAD.encode(&bytes[..length]);
        assert_eq!(tokens().open(caller(), &query(), &cut), Err(PageTokenInvalid), "{length} bytes");
    }
    for bad in ["!", "a", "🦀", &format!("{token}A"), &format!("{token}=")] {
        assert_eq!(tokens().open(caller(), &query(), bad), Err(PageTokenInvalid), "{bad}");
    }
}

#[test]
fn another_secret_password_or_context_makes_other_tokens() {
    let token = tokens().seal(caller(), &query(), &cursor());
    let other = PageTokens::from_secret(&[8; 32]).unwrap();
    assert_eq!(other.open(caller(), &query(), &token), Err(PageTokenInvalid));

    let of =
        |password: &str, context: &str| PageTokens::from_password(password.as_bytes(), context.as_bytes()).unwrap();
    let token = of("secret", "tasks").seal(caller(), &query(), &cursor());
    assert!(of("secret", "tasks").open(caller(), &query(), &token).is_ok());
    for other in [of("other", "tasks"), of("secret", "other"), of("", "tasks")] {
        assert_eq!(other.open(caller(), &query(), &token), Err(PageTokenInvalid));
    }
}
