//! The rules of the task set alone: its rows can be distributed by their owner.

use crate::rules::{Case, each};
use crate::tables;

/// Whether the rules of this file apply.
fn distributed(case: &Case<'_>) -> bool {
    case.migration().service == "task"
}

pub(crate) fn alone(case: &Case<'_>) -> Vec<String> {
    let barred =
        ["references", "foreign key", "create trigger", "create or replace trigger", "create constraint trigger"];
    each(&case.up, |piece| distributed(case) && barred.iter().any(|words| piece.has(words)))
}

pub(crate) fn time(case: &Case<'_>) -> Vec<String> {
    let clocks = ["now", "current_timestamp", "clock_timestamp", "statement_timestamp", "transaction_timestamp"];
    each(&case.up, |piece| {
        let update = piece.find("on conflict").and_then(|at| piece.find_from(at, "do update"));
        let tells_time = |at| clocks.iter().any(|clock| piece.find_from(at, clock).is_some());
        distributed(case) && update.is_some_and(tells_time)
    })
}

pub(crate) fn key(case: &Case<'_>) -> Vec<String> {
    if !distributed(case) {
        return vec![];
    }
    let lacks = |key: &String| !key.split(' ').any(|word| word == "user_id");
    let keys = case.up.iter().filter_map(tables::created).flat_map(|created| created.keys);
    let mut breaches: Vec<_> = keys.filter(lacks).collect();
    breaches.extend(each(&case.up, |piece| {
        let index = piece.has("create unique index");
        let constraint =
            piece.find("add constraint").is_some_and(|at| ["primary", "unique"].contains(&piece.word(at + 3)));
        let by_index = piece.has("using index");
        (index || constraint && !by_index) && !piece.tokens.iter().any(|token| token.text == "user_id")
    }));
    breaches
}
