//! A set with what the services' own sets do not have: a serial column, a sequence that belongs to no column, a trigger with
//! its function. Each of them is broken by hand, and must be seen, repaired by `up` and by `repair`, rehearsed without a
//! trace; afterwards the schema is the fresh one, every row is there, and new rows come in.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a suite ends the test with a panic")]

mod set;

use std::time::Duration;

use migration_engine::{EngineError, Expected, Kind, Problem, State, UpReport, read_schema, verify};
use set::{Command, Connections, EXPECTED, down, run, set};
use tests::catalog::{Catalog, Rows, catalog_differences, snapshot};
use tests::{Random, TestDatabase, number_from_environment};

/// Something that happens to a database by hand, and what `verify` calls it.
struct Hand {
    sql: &'static str,
    seen: &'static [(Kind, &'static str, Problem)],
    /// The columns whose values it takes away; `*` for the rows.
    lost: &'static [&'static str],
}

const fn hand(sql: &'static str, seen: &'static [(Kind, &'static str, Problem)]) -> Hand {
    Hand { sql, seen, lost: &[] }
}

const fn losing(
    sql: &'static str,
    seen: &'static [(Kind, &'static str, Problem)],
    lost: &'static [&'static str],
) -> Hand {
    Hand { sql, seen, lost }
}

const ID: &str = "items_id_seq";
const NUMBER: &str = "ticket_number";
const TRIGGER: &str = "items_count_change";

const HANDS: &[Hand] = &[
    // Sequences
    hand(
        "DROP SEQUENCE items_id_seq CASCADE",
        &[(Kind::Sequence, ID, Problem::Missing), (Kind::Column, "id", Problem::Different)],
    ),
    hand(
        "DROP SEQUENCE ticket_number CASCADE",
        &[(Kind::Sequence, NUMBER, Problem::Missing), (Kind::Column, "number", Problem::Different)],
    ),
    hand("ALTER SEQUENCE items_id_seq INCREMENT BY 10", &[(Kind::Sequence, ID, Problem::Different)]),
    hand("ALTER SEQUENCE items_id_seq AS smallint CYCLE", &[(Kind::Sequence, ID, Problem::Different)]),
    hand("ALTER SEQUENCE ticket_number AS bigint CACHE 20", &[(Kind::Sequence, NUMBER, Problem::Different)]),
    hand("ALTER SEQUENCE items_id_seq OWNED BY NONE", &[(Kind::Sequence, ID, Problem::Different)]),
    hand("ALTER SEQUENCE items_id_seq OWNED BY items.number", &[(Kind::Sequence, ID, Problem::Different)]),
    hand("ALTER SEQUENCE ticket_number OWNED BY items.label", &[(Kind::Sequence, NUMBER, Problem::Different)]),
    hand(
        "ALTER TABLE items ALTER COLUMN id DROP DEFAULT; ALTER SEQUENCE items_id_seq OWNED BY NONE",
        &[(Kind::Sequence, ID, Problem::Missing), (Kind::Column, "id", Problem::Different)],
    ),
    hand(
        "CREATE SEQUENCE other; ALTER TABLE items ALTER COLUMN id SET DEFAULT nextval('other')",
        &[(Kind::Column, "id", Problem::Different), (Kind::Sequence, "other", Problem::Unexpected)],
    ),
    hand(
        "ALTER SEQUENCE ticket_number RENAME TO other_number",
        &[(Kind::Column, "number", Problem::Different), (Kind::Sequence, NUMBER, Problem::Missing)],
    ),
    // Columns and tables that take a sequence with them
    losing(
        "ALTER TABLE items DROP COLUMN id",
        &[
            (Kind::Column, "id", Problem::Missing),
            (Kind::Constraint, "items_pkey", Problem::Missing),
            (Kind::Sequence, ID, Problem::Missing),
        ],
        &["id"],
    ),
    losing(
        "ALTER TABLE items DROP COLUMN number",
        &[(Kind::Column, "number", Problem::Missing), (Kind::Sequence, NUMBER, Problem::Missing)],
        &["number"],
    ),
    losing("DROP TABLE items", &[(Kind::Table, "items", Problem::Missing)], &["*"]),
    losing("DROP TABLE items; DROP FUNCTION count_change()", &[(Kind::Table, "items", Problem::Missing)], &["*"]),
    // Triggers and their function
    hand("DROP TRIGGER items_count_change ON items", &[(Kind::Trigger, TRIGGER, Problem::Missing)]),
    hand("ALTER TABLE items DISABLE TRIGGER items_count_change", &[(Kind::Trigger, TRIGGER, Problem::Different)]),
    hand("ALTER TABLE items ENABLE ALWAYS TRIGGER items_count_change", &[(Kind::Trigger, TRIGGER, Problem::Different)]),
    hand(
        "CREATE OR REPLACE TRIGGER items_count_change AFTER UPDATE ON items FOR EACH ROW EXECUTE FUNCTION count_change()",
        &[(Kind::Trigger, TRIGGER, Problem::Different)],
    ),
    hand(
        "ALTER TRIGGER items_count_change ON items RENAME TO other_trigger",
        &[(Kind::Trigger, TRIGGER, Problem::Missing)],
    ),
    hand("DROP FUNCTION count_change() CASCADE", &[(Kind::Trigger, TRIGGER, Problem::Missing)]),
    hand("ALTER FUNCTION count_change() RENAME TO other_function", &[(Kind::Trigger, TRIGGER, Problem::Different)]),
    hand("ALTER FUNCTION count_change() SECURITY DEFINER", &[(Kind::Function, "count_change", Problem::Different)]),
    hand(
        "CREATE OR REPLACE FUNCTION count_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        &[(Kind::Function, "count_change", Problem::Different)],
    ),
];

/// What is in the way: nothing is changed, and the reason says what.
const BLOCKED: &[(&str, &str)] = &[
    (
        "ALTER SEQUENCE ticket_number AS bigint MAXVALUE 9000000000; SELECT setval('ticket_number', 8000000000)",
        "sequence ticket_number stands at 8000000000",
    ),
    (
        "DROP SEQUENCE items_id_seq CASCADE; CREATE TABLE items_id_seq (a int)",
        "the name items_id_seq is taken by table",
    ),
    (
        "DROP SEQUENCE items_id_seq CASCADE; CREATE TABLE others (a int); CREATE SEQUENCE items_id_seq OWNED BY others.a",
        "the name items_id_seq is taken by sequence",
    ),
    ("DROP TABLE items; CREATE VIEW items_id_seq AS SELECT 1 AS a", "the name items_id_seq is taken by view"),
    (
        "CREATE OR REPLACE FUNCTION count_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         ALTER FUNCTION count_change() OWNER TO CURRENT_USER",
        "function count_change belongs to role",
    ),
];

async fn filled() -> TestDatabase {
    let database = TestDatabase::empty().await;
    ended_well("fresh", &run(Command::Up, &database).await);
    database.execute("INSERT INTO items (label) SELECT 'item ' || n FROM generate_series(1, 50) n").await;
    database.execute("UPDATE items SET label = label || '!' WHERE id % 7 = 0").await;
    database
}

fn ended_well(what: &str, (report, outcome): &(UpReport, Result<(), EngineError>)) {
    assert!(outcome.is_ok(), "{what}: {outcome:?}\n{report:?}");
    assert_eq!(report.verify.state, State::Match, "{what}: {report:?}");
}

/// What of `after` is not as in `fresh`; what somebody added stays, and is not asked here.
fn not_converged(fresh: &Catalog, after: &Catalog) -> Vec<String> {
    let ours = after.iter().filter(|(object, _)| fresh.contains_key(*object));
    catalog_differences(fresh, &ours.map(|(object, what)| (object.clone(), what.clone())).collect())
}

fn without(rows: &Rows, lost: &[&str]) -> Vec<String> {
    let mut texts: Vec<String> = rows["public.items"]
        .iter()
        .map(|row| {
            let mut row = row.clone();
            lost.iter().for_each(|column| {
                row.as_object_mut().unwrap().remove(*column);
            });
            row.to_string()
        })
        .collect();
    texts.sort();
    texts
}

/// A new row gets an id and a number that no other has, and a change is counted.
async fn works(what: &str, database: &TestDatabase) {
    let client = database.client().await;
    let insert = "INSERT INTO items (label) SELECT 'new' FROM generate_series(1, 3) RETURNING id";
    let new = client.query(insert, &[]).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let id: i64 = new[0].get(0);
    let sql = "SELECT count(*) FROM items GROUP BY number HAVING count(*) > 1";
    assert!(client.query(sql, &[]).await.unwrap().is_empty(), "{what}: a number was given twice");
    let sql = "UPDATE items SET label = 'newer' WHERE id = $1 RETURNING changes";
    assert_eq!(client.query_one(sql, &[&id]).await.unwrap().get::<_, i32>(0), 1, "{what}: the change is not counted");
}

#[tokio::test]
async fn the_committed_schema_is_that_of_a_fresh_install() {
    let database = TestDatabase::empty().await;
    for migration in &set().migrations {
        for statement in &migration.statements {
            database.execute(&statement.sql).await;
        }
    }
    let tables = read_schema(&database.client().await, &["items".to_owned()]).await.unwrap();
    let fresh = serde_json::to_string_pretty(&Expected { tables, ..Expected::default() }).unwrap();
    assert_eq!(fresh.trim(), EXPECTED.trim(), "tests/fixtures/sample/expected.json should be:\n{fresh}");
}

#[tokio::test]
async fn every_object_that_is_broken_by_hand_is_seen_and_repaired() {
    let template = filled().await;
    let fresh = snapshot(&template.client().await).await;
    for hand in HANDS {
        let broken = template.copy().await;
        broken.execute(hand.sql).await;
        let report = verify(&Connections::to(&broken), &set()).await.unwrap();
        let seen: Vec<_> =
            report.drift.iter().map(|drift| (drift.kind, drift.object.as_str(), drift.problem)).collect();
        for expected in hand.seen {
            assert!(seen.contains(expected), "{}: {expected:?} is not among {seen:?}", hand.sql);
        }
        assert_eq!(seen.len(), hand.seen.len(), "{}: {seen:?}", hand.sql);

        let rehearsed = broken.copy().await;
        let before = snapshot(&rehearsed.client().await).await;
        let (report, outcome) = run(Command::Rehearse, &rehearsed).await;
        assert!(outcome.is_ok() && report.verify.drift.is_empty(), "{}: {outcome:?} {report:?}", hand.sql);
        assert_eq!(
            before.differences(&snapshot(&rehearsed.client().await).await),
            Vec::<String>::new(),
            "{}",
            hand.sql
        );

        for (command, history) in [(Command::Up, "kept"), (Command::Up, "lost"), (Command::Repair, "kept")] {
            let what = format!("{command:?} after {}, history {history}", hand.sql);
            let database = broken.copy().await;
            if history == "lost" {
                database.execute("DELETE FROM __diesel_schema_migrations").await;
            }
            ended_well(&what, &run(command, &database).await);
            let after = snapshot(&database.client().await).await;
            assert_eq!(not_converged(&fresh.catalog, &after.catalog), Vec::<String>::new(), "{what}");
            if hand.lost != ["*"] {
                assert_eq!(without(&fresh.rows, hand.lost), without(&after.rows, hand.lost), "{what}");
            }
            // A second look finds nothing to do.
            let (again, outcome) = run(command, &database).await;
            assert!(outcome.is_ok() && again.actions.is_empty(), "{what}, again: {outcome:?} {:?}", again.actions);
            works(&what, &database).await;
        }
    }
}

#[tokio::test]
async fn what_is_in_the_way_is_told_before_anything_is_changed() {
    let template = filled().await;
    for (sql, reason) in BLOCKED {
        let database = template.copy().await;
        // As the superuser, to whom then belongs what it makes.
        database.client().await.batch_execute(sql).await.unwrap();
        let before = snapshot(&database.client().await).await;
        let (report, outcome) = run(Command::Up, &database).await;
        let Err(EngineError::Blocked(blockers)) = outcome else { panic!("{sql}: {outcome:?}\n{report:?}") };
        let reasons: Vec<&str> = blockers.iter().map(|blocker| blocker.reason.as_str()).collect();
        assert!(reasons.iter().any(|told| told.starts_with(reason)), "{sql}: {reasons:?}");
        assert!(blockers.iter().all(|blocker| !blocker.resolve.is_empty()), "{sql}: {blockers:?}");
        assert_eq!(before.differences(&snapshot(&database.client().await).await), Vec::<String>::new(), "{sql}");
    }
}

/// `PAIRS` is how many pairs of them are tried, `SEED` which.
#[tokio::test]
async fn two_of_them_at_once_are_repaired_as_well() {
    let seed = number_from_environment("SEED", 1);
    let (template, mut random) = (filled().await, Random::new(seed));
    let fresh = snapshot(&template.client().await).await.catalog;
    for _ in 0..number_from_environment("PAIRS", 12) {
        let (first, second) = (&HANDS[random.below(HANDS.len())], &HANDS[random.below(HANDS.len())]);
        let what = format!("SEED={seed}: {}; {}", first.sql, second.sql);
        let database = template.copy().await;
        let client = database.client().await;
        client.batch_execute(first.sql).await.unwrap();
        // The second may have nothing left to break.
        let _refused = client.batch_execute(second.sql).await;
        ended_well(&what, &run(Command::Up, &database).await);
        let after = snapshot(&client).await;
        assert_eq!(not_converged(&fresh, &after.catalog), Vec::<String>::new(), "{what}");
    }
}

/// An object that somebody replaces in one transaction is there at every moment, whichever of its parts are read when.
#[tokio::test]
async fn an_object_that_is_replaced_meanwhile_is_not_missing() {
    let database = filled().await;
    let client = database.client().await;
    let replace =
        "BEGIN; DROP TRIGGER items_count_change ON items; CREATE TRIGGER items_count_change BEFORE UPDATE ON items
        FOR EACH ROW EXECUTE FUNCTION count_change(); COMMIT";
    let until = tokio::time::Instant::now() + Duration::from_secs(4);
    let replacing = async {
        let mut times = 0;
        while tokio::time::Instant::now() < until {
            client.batch_execute(replace).await.unwrap();
            times += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        times
    };
    let looking = async {
        let mut looks = 0;
        while tokio::time::Instant::now() < until {
            let report = verify(&Connections::to(&database), &set()).await.unwrap();
            assert_eq!(report.state, State::Match, "after {looks} looks: {:?}", report.drift);
            looks += 1;
        }
        looks
    };
    let (times, looks) = tokio::join!(replacing, looking);
    println!("replaced {times} times, looked {looks} times");
}

#[tokio::test]
async fn down_and_up_again_give_the_same_schema() {
    let database = filled().await;
    let fresh = snapshot(&database.client().await).await.catalog;
    for steps in [1, 2] {
        down(&database, steps).await.unwrap();
        let left = snapshot(&database.client().await).await.catalog;
        let ours = left.keys().filter(|object| !object.table.contains("__"));
        let ours: Vec<String> = ours.map(ToString::to_string).collect();
        assert!(ours.iter().all(|object| !object.contains("count_change")), "{ours:?}");
        assert_eq!(ours.is_empty(), steps == 2, "{ours:?}");
        ended_well("up", &run(Command::Up, &database).await);
        let after = snapshot(&database.client().await).await.catalog;
        assert_eq!(catalog_differences(&fresh, &after), Vec::<String>::new());
    }
}
