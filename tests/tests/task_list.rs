//! Lists: every order is complete over ties and gaps, page tokens belong to their list, filters filter.
#![expect(clippy::unwrap_used, reason = "a suite ends the test with a panic")]

mod task_support;

use std::cmp::Ordering;
use std::collections::BTreeSet;

use prost_types::Timestamp;
use proto::task::v1::{CreateTaskRequest, DeleteTaskRequest, GetTaskRequest, ListTasksRequest, Task, TaskStatus};
use task_support::{Tasks, at, create, titled, update};
use tests::{Pair, assert_refused};
use tonic::Code;

/// All pages of a list.
async fn pages(tasks: &mut Tasks, request: &ListTasksRequest) -> Vec<Vec<Task>> {
    let mut pages = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = ListTasksRequest { page_token, ..request.clone() };
        let page = tasks.list_tasks(page).await.unwrap().into_inner();
        assert!(!page.tasks.is_empty() || page.next_page_token.is_empty(), "an empty page promises another");
        pages.push(page.tasks);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return pages;
        }
        assert!(pages.len() < 1_000, "the list does not end");
    }
}

async fn titles(tasks: &mut Tasks, request: ListTasksRequest) -> String {
    let request = ListTasksRequest { order_by: "title".to_owned(), ..request };
    let listed = tasks.list_tasks(request).await.unwrap().into_inner().tasks;
    listed.into_iter().map(|task| task.title).collect::<Vec<_>>().join(" ")
}

fn moment(time: Option<Timestamp>) -> Option<(i64, i32)> {
    time.map(|time| (time.seconds, time.nanos))
}

/// How the order compares two tasks that differ, by the words of the contract.
fn compare(field: &str, descending: bool, one: &Task, other: &Task) -> Ordering {
    let by_field = match field {
        "created_at" => moment(one.created_at).cmp(&moment(other.created_at)),
        "updated_at" => moment(one.updated_at).cmp(&moment(other.updated_at)),
        "title" => one.title.cmp(&other.title),
        "status" => one.status.cmp(&other.status),
        _ => match (moment(one.due_date), moment(other.due_date)) {
            // Without a date: last, in both directions.
            (None, Some(_)) => return Ordering::Greater,
            (Some(_), None) => return Ordering::Less,
            (one, other) => one.cmp(&other),
        },
    };
    let order = by_field.then_with(|| one.id.cmp(&other.id));
    if descending { order.reverse() } else { order }
}

#[tokio::test]
async fn every_order_is_complete_over_ties_and_gaps() {
    let pair = Pair::start().await;
    let (alice, bob) = tokio::join!(pair.sign_up("alice"), pair.sign_up("bob"));
    let mut tasks = pair.tasks(&alice);
    create(&mut pair.tasks(&bob), titled("bob's")).await;
    // Few values for many tasks: ties everywhere; half of them without a due date; upper case, umlauts and signs in the titles.
    let database = pair.task_database.as_ref().unwrap();
    let filled = format!(
        "INSERT INTO tasks (id, user_id, title, status, due_date, created_at, updated_at)
         SELECT gen_random_uuid(), '{}', (ARRAY['a', 'B', 'ä', 'a b', 'Z', 'é', '_', '%', '🦀', 'b'])[1 + n % 10],
             (ARRAY['todo', 'in_progress', 'completed', 'cancelled'])[1 + (n / 3) % 4],
             CASE WHEN n % 2 = 0 THEN timestamptz '2030-01-01' + (n % 3) * interval '1 microsecond' END,
             timestamptz '2020-01-01' + (n % 5) * interval '1 microsecond', timestamptz '2020-01-01' - (n % 7) * interval '1 day'
         FROM generate_series(1, 100) AS n",
        alice.id()
    );
    database.execute(&filled).await;

    for field in ["created_at", "updated_at", "due_date", "title", "status"] {
        for direction in ["", " asc", " desc"] {
            for page_size in [7, 50, 99, 100, 1000] {
                let request =
                    ListTasksRequest { page_size, order_by: format!("{field}{direction}"), ..Default::default() };
                let pages = pages(&mut tasks, &request).await;
                let size = usize::try_from(page_size).unwrap();
                assert_eq!(pages.len(), 100_usize.div_ceil(size), "{request:?}");
                assert!(pages.iter().rev().skip(1).all(|page| page.len() == size), "{request:?}");
                let listed: Vec<_> = pages.into_iter().flatten().collect();
                assert_eq!(listed.len(), 100, "{request:?}");
                let descending = direction == " desc";
                let sorted = listed.is_sorted_by(|one, other| compare(field, descending, one, other) == Ordering::Less);
                assert!(sorted, "{request:?}");
            }
        }
    }
    let newest_first = pages(&mut tasks, &ListTasksRequest::default()).await;
    assert_eq!(newest_first.len(), 2, "50 on a page unless the caller says otherwise");
    let listed: Vec<_> = newest_first.into_iter().flatten().collect();
    assert!(listed.is_sorted_by(|one, other| compare("created_at", true, one, other) == Ordering::Less));
}

#[tokio::test]
async fn a_page_token_belongs_to_its_list() {
    let pair = Pair::start().await;
    let (alice, bob, root) = tokio::join!(pair.sign_up("alice"), pair.sign_up("bob"), pair.administrator());
    let mut tasks = pair.tasks(&alice);
    for title in ["a", "b", "c"] {
        create(&mut tasks, titled(title)).await;
    }
    let first = ListTasksRequest { page_size: 1, ..Default::default() };
    let answer = tasks.list_tasks(first.clone()).await.unwrap().into_inner();
    let token = answer.next_page_token;
    let next = ListTasksRequest { page_token: token.clone(), ..first };

    let others = [
        ListTasksRequest { order_by: "created_at".to_owned(), ..next.clone() },
        ListTasksRequest { order_by: "title".to_owned(), ..next.clone() },
        ListTasksRequest { statuses: vec![TaskStatus::Todo.into()], ..next.clone() },
        ListTasksRequest { title_contains: "a".to_owned(), ..next.clone() },
        ListTasksRequest { description_contains: "a".to_owned(), ..next.clone() },
        ListTasksRequest { due_after: at(0, 0), ..next.clone() },
        ListTasksRequest { created_before: at(4_000_000_000, 0), ..next.clone() },
        ListTasksRequest { page_token: format!("{token}A"), ..next.clone() },
        ListTasksRequest { page_token: token[1..].to_owned(), ..next.clone() },
        ListTasksRequest {
            page_token: format!("{}{}", if token.starts_with('B') { "C" } else { "B" }, &token[1..]),
            ..next.clone()
        },
        ListTasksRequest { page_token: "1".to_owned(), ..next.clone() },
        ListTasksRequest { page_token: "🦀".repeat(5_000), ..next.clone() },
    ];
    for other in others {
        let refusal = assert_refused(tasks.list_tasks(other).await, Code::InvalidArgument, "PAGE_TOKEN_INVALID");
        assert_eq!(refusal.fields, ["page_token"]);
    }
    for other in [&bob, &root] {
        assert_refused(pair.tasks(other).list_tasks(next.clone()).await, Code::InvalidArgument, "PAGE_TOKEN_INVALID");
    }
    let of_alice = ListTasksRequest { user_id: alice.id().to_owned(), ..next.clone() };
    assert_refused(pair.tasks(&root).list_tasks(of_alice.clone()).await, Code::InvalidArgument, "PAGE_TOKEN_INVALID");

    // The size of a page may change, the default order may be spelt out, and one may name oneself: it is the same list.
    for same in [
        next.clone(),
        ListTasksRequest { page_size: 2, ..next.clone() },
        ListTasksRequest { order_by: "created_at desc".to_owned(), ..next.clone() },
        of_alice,
    ] {
        assert_eq!(tasks.list_tasks(same).await.unwrap().into_inner().tasks[0].title, "b");
    }
    // The page begins behind the last task, also when that is gone.
    tasks.delete_task(DeleteTaskRequest { id: answer.tasks[0].id.clone(), etag: String::new() }).await.unwrap();
    assert_eq!(tasks.list_tasks(next).await.unwrap().into_inner().tasks[0].title, "b");
}

#[tokio::test]
async fn a_page_token_survives_a_restart_and_another_replica() {
    let mut pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);
    for title in ["a", "b"] {
        create(&mut tasks, titled(title)).await;
    }
    let first = ListTasksRequest { page_size: 1, order_by: "title".to_owned(), ..Default::default() };
    let token = tasks.list_tasks(first.clone()).await.unwrap().into_inner().next_page_token;
    let database = pair.task_database.as_ref().unwrap();
    let key = ("PAGE_TOKEN_KEY", "dGhlIHRlc3RzIG5lZWQgMzIgYnl0ZXMgaGVyZS4uLi4=");
    let replica = tests::TaskServer::start(database, pair.auth.address(), &[]).await;
    let stranger = tests::TaskServer::start(database, pair.auth.address(), &[key]).await;
    pair.task.kill();
    let next = ListTasksRequest { page_token: token, ..first };
    let mut tasks = Tasks::new(replica.channel_with(alice.access_token()));
    assert_eq!(tasks.list_tasks(next.clone()).await.unwrap().into_inner().tasks[0].title, "b");
    let mut tasks = Tasks::new(stranger.channel_with(alice.access_token()));
    assert_refused(tasks.list_tasks(next).await, Code::InvalidArgument, "PAGE_TOKEN_INVALID");
}

#[tokio::test]
async fn filters_narrow_a_list() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);
    for (title, description, status, due) in [
        ("100% done", "Straße", TaskStatus::Completed, at(1_000, 5_000)),
        ("1000 things", "under_score", TaskStatus::Todo, at(1_000, 6_000)),
        ("Buy milk", r"C:\temp", TaskStatus::InProgress, None),
        ("buy BREAD", "", TaskStatus::Cancelled, at(-5, 0)),
    ] {
        let request = CreateTaskRequest {
            description: description.to_owned(),
            status: status.into(),
            due_date: due,
            ..titled(title)
        };
        create(&mut tasks, request).await;
    }
    let all = ListTasksRequest::default;
    let found = [
        (ListTasksRequest { title_contains: "BUY".to_owned(), ..all() }, "Buy milk buy BREAD"),
        (ListTasksRequest { title_contains: "00%".to_owned(), ..all() }, "100% done"),
        (ListTasksRequest { title_contains: "%".to_owned(), ..all() }, "100% done"),
        (ListTasksRequest { title_contains: "1_0".to_owned(), ..all() }, ""),
        (ListTasksRequest { title_contains: "'; --".to_owned(), ..all() }, ""),
        (ListTasksRequest { description_contains: "_".to_owned(), ..all() }, "1000 things"),
        (ListTasksRequest { description_contains: r"\t".to_owned(), ..all() }, "Buy milk"),
        (ListTasksRequest { description_contains: "STRA".to_owned(), ..all() }, "100% done"),
        (ListTasksRequest { statuses: vec![4, 1, 4], ..all() }, "1000 things buy BREAD"),
        // From the first on, up to but not including the second.
        (ListTasksRequest { due_after: at(1_000, 5_000), ..all() }, "100% done 1000 things"),
        (ListTasksRequest { due_after: at(1_000, 5_001), ..all() }, "1000 things"),
        (ListTasksRequest { due_before: at(1_000, 6_000), ..all() }, "100% done buy BREAD"),
        (ListTasksRequest { due_before: at(1_000, 6_001), ..all() }, "100% done 1000 things buy BREAD"),
        (ListTasksRequest { due_after: at(0, 0), due_before: at(1_000, 5_500), ..all() }, "100% done"),
        (ListTasksRequest { created_after: at(4_000_000_000, 0), ..all() }, ""),
        (ListTasksRequest { created_before: at(4_000_000_000, 0), statuses: vec![3], ..all() }, "100% done"),
    ];
    for (request, expected) in found {
        assert_eq!(titles(&mut tasks, request.clone()).await, expected, "{request:?}");
        // The same through all orders and small pages, where each statement has the filter.
        for order_by in ["due_date desc", "status", "status desc", "updated_at"] {
            let request = ListTasksRequest { page_size: 1, order_by: order_by.to_owned(), ..request.clone() };
            let mut listed: Vec<_> =
                pages(&mut tasks, &request).await.into_iter().flatten().map(|task| task.title).collect();
            listed.sort();
            assert_eq!(listed.join(" "), expected, "{request:?}");
        }
    }
}

#[tokio::test]
async fn bad_lists_name_their_field() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);
    let all = ListTasksRequest::default;
    let bad = [
        (ListTasksRequest { page_size: -1, ..all() }, "page_size"),
        (ListTasksRequest { page_size: i32::MIN, ..all() }, "page_size"),
        (ListTasksRequest { order_by: "id".to_owned(), ..all() }, "order_by"),
        (ListTasksRequest { order_by: "title, id".to_owned(), ..all() }, "order_by"),
        (ListTasksRequest { order_by: "title desc; DROP TABLE tasks".to_owned(), ..all() }, "order_by"),
        (ListTasksRequest { statuses: vec![1, 0], ..all() }, "statuses[1]"),
        (ListTasksRequest { statuses: vec![9], ..all() }, "statuses[0]"),
        (ListTasksRequest { title_contains: "\0".to_owned(), ..all() }, "title_contains"),
        (ListTasksRequest { title_contains: "x".repeat(201), ..all() }, "title_contains"),
        (ListTasksRequest { description_contains: "x".repeat(201), ..all() }, "description_contains"),
        (ListTasksRequest { due_after: at(i64::MAX, 0), ..all() }, "due_after"),
        (ListTasksRequest { due_before: at(0, -1), ..all() }, "due_before"),
        (ListTasksRequest { created_after: at(0, 1_000_000_000), ..all() }, "created_after"),
        (ListTasksRequest { created_before: at(i64::MIN, 0), ..all() }, "created_before"),
        (ListTasksRequest { user_id: "all".to_owned(), ..all() }, "user_id"),
    ];
    for (request, field) in bad {
        let refusal =
            assert_refused(tasks.list_tasks(request.clone()).await, Code::InvalidArgument, "VALIDATION_FAILED");
        assert_eq!(refusal.fields, [field], "{request:?}");
    }
    // The service is still there, and the largest number is only large.
    let largest = ListTasksRequest { page_size: i32::MAX, due_before: at(253_402_300_799, 999_999_999), ..all() };
    assert!(tasks.list_tasks(largest).await.unwrap().into_inner().tasks.is_empty());
}

#[tokio::test]
async fn a_page_of_long_tasks_fits_into_a_message() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);
    let database = pair.task_database.as_ref().unwrap();
    let filled = format!(
        "INSERT INTO tasks (id, user_id, title, description)
         SELECT gen_random_uuid(), '{}', n, repeat('🦀', 10000) FROM generate_series(1, 200) AS n",
        alice.id()
    );
    database.execute(&filled).await;
    // 8 MB of tasks, and clients refuse messages over 4 MiB: the page ends early and the next one goes on.
    let pages = pages(&mut tasks, &ListTasksRequest { page_size: 1000, ..Default::default() }).await;
    assert_eq!(pages.len(), 3);
    let mut ids: Vec<_> = pages.into_iter().flatten().map(|task| task.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 200);
}

#[tokio::test]
async fn a_task_that_changed_is_listed_as_it_is() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);
    let first = create(&mut tasks, titled("first")).await;
    create(&mut tasks, titled("second")).await;
    let changed = update(&mut tasks, Task { id: first.id, title: "changed".to_owned(), ..Default::default() }, &[])
        .await
        .unwrap();
    let request = ListTasksRequest { order_by: "updated_at desc".to_owned(), ..Default::default() };
    assert_eq!(tasks.list_tasks(request).await.unwrap().into_inner().tasks[0], changed);
}

/// Puts tasks of the account into the database as only the legacy system could: `select` gives title, description, due date.
async fn insert_legacy(pair: &Pair, user_id: &str, select: &str) {
    let columns = "(id, user_id, limits_waived, title, description, due_date)";
    let rows = format!(
        "INSERT INTO tasks {columns} SELECT gen_random_uuid(), '{user_id}', true, legacy.* FROM ({select}) AS legacy"
    );
    pair.task_database.as_ref().unwrap().execute(&rows).await;
}

#[tokio::test]
async fn long_legacy_titles_page_to_the_end() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);
    // Some begin alike for more than 200 characters, of one byte and of four; some are short.
    for beginning in
        ["repeat('x', 60000)", "repeat('🦀', 50000)", "lpad(n::text, 60000, 'y')", "''", "repeat('x', 199)"]
    {
        let select = format!("SELECT {beginning} || n, NULL, NULL::timestamptz FROM generate_series(1, 4) AS n");
        insert_legacy(&pair, alice.id(), &select).await;
    }
    for order_by in ["title", "title desc"] {
        for page_size in [1, 3, 20] {
            let request = ListTasksRequest { page_size, order_by: order_by.to_owned(), ..Default::default() };
            let listed: Vec<_> = pages(&mut tasks, &request).await.into_iter().flatten().collect();
            assert_eq!(listed.iter().map(|task| &task.id).collect::<BTreeSet<_>>().len(), 20, "{request:?}");
            assert_eq!(listed.len(), 20, "{request:?}");
            let key = |task: &Task| (task.title.chars().take(200).collect::<String>(), task.id.clone());
            let mut keys: Vec<_> = listed.iter().map(key).collect();
            if order_by == "title desc" {
                keys.reverse();
            }
            assert!(keys.is_sorted(), "{request:?}");
        }
    }
    // The token is short, and outlives the task it stands behind.
    let first = ListTasksRequest { page_size: 1, order_by: "title desc".to_owned(), ..Default::default() };
    let page = tasks.list_tasks(first.clone()).await.unwrap().into_inner();
    assert!(page.next_page_token.len() < 1_500, "{}", page.next_page_token.len());
    pair.task_database.as_ref().unwrap().execute(&format!("DELETE FROM tasks WHERE id = '{}'", page.tasks[0].id)).await;
    let next = ListTasksRequest { page_token: page.next_page_token, ..first };
    assert!(tasks.list_tasks(next).await.unwrap().into_inner().tasks[0].title.starts_with('🦀'));
}

#[tokio::test]
async fn an_enormous_legacy_task_does_not_stop_a_list() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    // A client that refuses messages over 4 MiB, as clients do unless told otherwise.
    let mut tasks = pair.tasks(&alice);
    let enormous = "SELECT 'b', repeat('x', 5 * 1024 * 1024), NULL::timestamptz";
    insert_legacy(&pair, alice.id(), enormous).await;
    insert_legacy(&pair, alice.id(), "SELECT 'c' || repeat('🦀', 2000000), repeat('🦀', 2000000), NULL::timestamptz")
        .await;
    insert_legacy(&pair, alice.id(), "SELECT 'a', repeat('x', 65536), NULL::timestamptz").await;
    for page_size in [1, 1000] {
        let request = ListTasksRequest { page_size, order_by: "title".to_owned(), ..Default::default() };
        let listed: Vec<_> = pages(&mut tasks, &request).await.into_iter().flatten().collect();
        let lengths = |task: &Task| (task.title.chars().count(), task.description.chars().count());
        assert_eq!(listed.iter().map(lengths).collect::<Vec<_>>(), [(1, 65_536), (1, 65_536), (65_536, 65_536)]);
        // What was cut cannot be written back by accident: it is over today's limits.
        let back = Task { title: String::new(), ..listed[1].clone() };
        let refusal = update(&mut tasks, back, &["description"]).await;
        assert_eq!(assert_refused(refusal, Code::InvalidArgument, "VALIDATION_FAILED").fields, ["task.description"]);
        // The rest of it can change, as long as the texts stay out of the request.
        let done = Task { id: listed[1].id.clone(), status: TaskStatus::Completed.into(), ..Default::default() };
        let answer =
            update(&mut pair.tasks(&alice).max_decoding_message_size(16 * 1024 * 1024), done, &["status"]).await;
        assert_eq!(answer.unwrap().description.len(), 5 * 1024 * 1024);
        // Alone it is whole, for a client that accepts so much.
        let get = GetTaskRequest { id: listed[1].id.clone() };
        let mut patient = pair.tasks(&alice).max_decoding_message_size(16 * 1024 * 1024);
        let whole = patient.get_task(get).await.unwrap().into_inner().task.unwrap();
        assert_eq!(whole.description.len(), 5 * 1024 * 1024);
    }
}

#[tokio::test]
async fn times_that_no_message_can_hold_do_not_stop_a_list() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);
    let dates = "SELECT 't', NULL, (due || ' UTC')::timestamptz FROM unnest(ARRAY['0044-03-15 BC', '0001-12-31 23:59:59 BC', '4000-01-01 BC', \
                 '12000-01-01', '10000-01-01', '2030-01-01']) AS due";
    insert_legacy(&pair, alice.id(), dates).await;
    pair.task_database
        .as_ref()
        .unwrap()
        .execute("UPDATE tasks SET created_at = '12000-01-01', updated_at = '0044-03-15 BC'")
        .await;
    let (first, last) = (at(-62_135_596_800, 0), at(253_402_300_799, 999_999_999));
    for order_by in ["due_date", "due_date desc", "created_at", "updated_at"] {
        let request = ListTasksRequest { page_size: 1, order_by: order_by.to_owned(), ..Default::default() };
        let listed: Vec<_> = pages(&mut tasks, &request).await.into_iter().flatten().collect();
        assert!(listed.iter().all(|task| task.created_at == last && task.updated_at == first), "{listed:?}");
        let mut due: Vec<_> = listed.iter().map(|task| moment(task.due_date)).collect();
        due.sort();
        let (first, last) = (moment(first), moment(last));
        assert_eq!(due, [first, first, first, Some((1_893_456_000, 0)), last, last], "{order_by}");
    }
}
