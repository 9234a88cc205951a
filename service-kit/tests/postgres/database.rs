//! The pool on a real PostgreSQL: results and errors by class, retries, deadlines, and connections that clients abandon.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::cluster::Postgres;
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection as _};
use service_kit::database::{ConflictKind, Database, DatabaseError};
use service_kit::{deadline, store_error};

#[derive(Debug, QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

#[derive(Debug)]
enum StoreError {
    Full,
    Database(DatabaseError),
}
store_error!(StoreError::Database);

/// A database handle whose connections are told apart by `name`, and a table of that name.
async fn database(postgres: &Postgres, name: &str, connections: u32) -> Database {
    let database = Database::new(&postgres.url(&format!("application_name={name}")), connections).unwrap();
    let sql = format!(
        "CREATE TABLE {name} (id int CONSTRAINT {name}_pkey PRIMARY KEY, note text CONSTRAINT {name}_short CHECK (length(note) < 9))"
    );
    execute(&database, &sql).await.unwrap();
    database
}

/// Diesel's `load` hides the atomic's own.
fn seen(runs: &AtomicU32) -> u32 {
    AtomicU32::load(runs, Ordering::Relaxed)
}

async fn execute(database: &Database, sql: &str) -> Result<(), DatabaseError> {
    database.run("test_execute", async |conn| Ok(conn.batch_execute(sql).await?)).await
}

async fn count_on(conn: &mut AsyncPgConnection, from: &str) -> Result<i64, diesel::result::Error> {
    let row: Count = diesel::sql_query(format!("SELECT count(*) AS count FROM {from}")).get_result(conn).await?;
    Ok(row.count)
}

async fn count(database: &Database, from: &str) -> i64 {
    database.run("test_count", async |conn| Ok::<_, DatabaseError>(count_on(conn, from).await?)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_commit_roll_back_and_tell_domain_errors_apart() {
    let postgres = Postgres::shared();
    let database = database(&postgres, "outcomes", 4).await;
    let insert = async |id: i32, note: String, full: bool| {
        // In a task of its own: what `transaction` returns can be sent between threads.
        let database = database.clone();
        let work = async move {
            database
                .transaction("outcome_create", async |conn| {
                    diesel::sql_query("INSERT INTO outcomes VALUES ($1, $2)")
                        .bind::<diesel::sql_types::Integer, _>(id)
                        .bind::<Text, _>(&note)
                        .execute(conn)
                        .await?;
                    if full { Err(StoreError::Full) } else { Ok(note.clone()) }
                })
                .await
        };
        tokio::spawn(work).await.unwrap()
    };
    assert_eq!(insert(1, "a".to_owned(), false).await.unwrap(), "a");
    assert!(matches!(insert(2, "b".to_owned(), true).await, Err(StoreError::Full)));
    assert_eq!(count(&database, "outcomes").await, 1);

    let StoreError::Database(error) = insert(1, "c".to_owned(), false).await.unwrap_err() else {
        panic!("a domain error")
    };
    assert_eq!(error.constraint(), Some("outcomes_pkey"));
    let StoreError::Database(error) = insert(3, "far too long".to_owned(), false).await.unwrap_err() else {
        panic!("a domain error")
    };
    assert!(
        matches!(error, DatabaseError::Conflict { kind: ConflictKind::Check, constraint, .. } if constraint == "outcomes_short")
    );
    assert!(matches!(execute(&database, "SELECT * FROM nowhere").await, Err(DatabaseError::Other(_))));
    assert_eq!(database.status().connections, 1, "errors of statements keep the connection");
    database.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_pinned_to_public_and_bounded_in_time() {
    let postgres = Postgres::shared();
    let database = Database::new(&postgres.url("application_name=settings"), 1).unwrap();
    let settings = "(SELECT 1 WHERE current_setting('search_path') = 'public' AND current_setting('statement_timeout') = '30s'
        AND current_setting('idle_in_transaction_session_timeout') = '1min' AND current_setting('lc_messages') = 'C') AS settings";
    assert_eq!(count(&database, settings).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn serialization_failures_are_retried_and_then_told() {
    let postgres = Postgres::shared();
    let database = database(&postgres, "retried", 4).await;
    let fail = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$";
    let runs = AtomicU32::new(0);
    let result = database
        .transaction("retried_create", async |conn| {
            conn.batch_execute("INSERT INTO retried VALUES (1)").await?;
            if runs.fetch_add(1, Ordering::Relaxed) < 2 {
                conn.batch_execute(fail).await?;
            }
            Ok::<_, DatabaseError>(())
        })
        .await;
    assert!(result.is_ok(), "{result:?}");
    assert_eq!((seen(&runs), count(&database, "retried").await), (3, 1));

    let always = database
        .transaction("retried_fail", async |conn| Ok::<_, DatabaseError>(conn.batch_execute(fail).await?))
        .await;
    assert!(matches!(always, Err(DatabaseError::Serialization(_))), "{always:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_transactions_that_lock_each_other_out_both_succeed() {
    let postgres = Postgres::shared();
    let database = database(&postgres, "deadlocked", 4).await;
    execute(&database, "INSERT INTO deadlocked VALUES (1, ''), (2, '')").await.unwrap();
    let both_hold = tokio::sync::Barrier::new(2);
    let swap = async |first: i32, second: i32| {
        let runs = AtomicU32::new(0);
        let update = |id: i32| format!("UPDATE deadlocked SET note = note || 'x' WHERE id = {id}");
        database
            .transaction("deadlocked_update", async |conn| {
                conn.batch_execute(&update(first)).await?;
                if runs.fetch_add(1, Ordering::Relaxed) == 0 {
                    both_hold.wait().await;
                }
                conn.batch_execute(&update(second)).await?;
                Ok::<_, DatabaseError>(seen(&runs))
            })
            .await
    };
    let (one, other) = tokio::join!(swap(1, 2), swap(2, 1));
    assert_eq!(one.unwrap() + other.unwrap(), 3, "one of them ran twice");
    assert_eq!(count(&database, "deadlocked WHERE note = 'xx'").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_callers_that_went_away_do_not_come_back() {
    let postgres = Postgres::shared();
    let database = database(&postgres, "abandoned", 8).await;
    for round in 0..40_u64 {
        let callers: Vec<_> = (0..5)
            .map(|caller| {
                let database = database.clone();
                tokio::spawn(async move {
                    let slow = async |conn: &mut AsyncPgConnection| {
                        let id = round * 10 + caller;
                        conn.batch_execute(&format!("INSERT INTO abandoned VALUES ({id})")).await?;
                        conn.batch_execute("SELECT pg_sleep(60)").await?;
                        Ok::<_, DatabaseError>(())
                    };
                    if caller % 2 == 0 {
                        database.transaction("abandoned_create", slow).await
                    } else {
                        database.run("abandoned_run", slow).await
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(round * 3 % 50)).await;
        callers.iter().for_each(|caller| caller.abort());
        for caller in callers {
            assert!(caller.await.unwrap_err().is_cancelled());
        }
        assert_eq!(database.status().waiting, 0);
    }
    // Every slot of the pool is free and usable at once, and the server runs nothing of the abandoned any more.
    let all = (0..8).map(|_| {
        database.run("abandoned_check", async |conn| {
            Ok::<_, DatabaseError>(conn.batch_execute("SELECT pg_sleep(0.05)").await?)
        })
    });
    assert!(futures_util::future::join_all(all).await.iter().all(Result::is_ok));
    let busy = "pg_stat_activity WHERE application_name = 'abandoned' AND pid <> pg_backend_pid() AND state <> 'idle'";
    let until = Instant::now() + Duration::from_secs(10);
    while count(&database, busy).await > 0 {
        assert!(Instant::now() < until, "queries of callers that went away still run");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let open = count(&database, "pg_stat_activity WHERE application_name = 'abandoned'").await;
    assert!(open <= 8, "{open} connections");
    assert_eq!(
        count(&database, "abandoned WHERE id % 2 = 0").await,
        0,
        "transactions of callers that went away are rolled back"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_deadline_bounds_statement_and_wait() {
    let postgres = Postgres::shared();
    let database = Database::new(&postgres.url("application_name=deadlines"), 1).unwrap();
    database.ping().await.unwrap();
    let started = Instant::now();
    let soon = || tokio::time::Instant::now() + Duration::from_millis(200);
    let sleep =
        async |conn: &mut AsyncPgConnection| Ok::<_, DatabaseError>(conn.batch_execute("SELECT pg_sleep(20)").await?);
    assert!(matches!(deadline::scope(soon(), database.run("sleep", sleep)).await, Err(DatabaseError::Timeout)));
    assert!(matches!(deadline::scope(soon(), database.transaction("sleep", sleep)).await, Err(DatabaseError::Timeout)));

    // With the only connection taken, waiting for it counts as well.
    let holder = tokio::spawn({
        let database = database.clone();
        async move { database.run("hold", sleep).await }
    });
    while database.status().connections == 0 || database.status().available > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(matches!(deadline::scope(soon(), database.run("sleep", sleep)).await, Err(DatabaseError::Timeout)));
    // A busy pool is not a lost database.
    database.ping().await.unwrap();
    holder.abort();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    database.run("after", async |conn| Ok::<_, DatabaseError>(conn.batch_execute("SELECT 1").await?)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_and_a_lost_server_are_unavailable_and_heal() {
    let postgres = Postgres::start();
    let url = postgres.url("application_name=lost");
    let database = Database::new(&url, 4).unwrap();
    let other = Database::new(&postgres.url("application_name=killer"), 1).unwrap();
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lost'";

    // Killed in the middle of a statement: this call fails, the next one works.
    let (killed, _) = tokio::join!(
        database.run("sleep", async |conn| Ok::<_, DatabaseError>(conn.batch_execute("SELECT pg_sleep(20)").await?)),
        async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            execute(&other, kill).await.unwrap();
        }
    );
    assert!(matches!(killed, Err(DatabaseError::Unavailable { .. })), "{killed:?}");
    database.ping().await.unwrap();

    // Killed while idle: nobody notices.
    execute(&other, kill).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    database.ping().await.unwrap();

    drop(postgres);
    let gone = database.ping().await;
    assert!(matches!(gone, Err(DatabaseError::Unavailable { .. })), "{gone:?}");
    let error = service_kit::postgres::connect(&url).await.err().unwrap();
    assert_eq!(error.kind(), service_kit::postgres::ConnectErrorKind::Unreachable);
    assert!(!error.to_string().contains('\n') && error.to_string().contains("DATABASE_URL"), "{error}");
}
