//! The database goes away in the middle of `migrate up`: a cut connection, a restart, a crash. The run rides it out within
//! `--lock-wait`; a database that stays away is exit 6.
//!
//! `CUTS=200 cargo test -p tests --test migrate_failover -- --nocapture` raises the number of cuts.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a suite ends the test with a panic")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use local_pair::guard::{EndBy, Guard};
use local_pair::postgres::{
    Cluster, ClusterOptions, DatabaseRoles, Dump, PostgresBinaries, ServerAddress, connect, roles_ensure,
};
use rustix::process::Signal;
use tests::catalog::{catalog_differences, snapshot};
use tests::legacy::fixture;
use tests::proxy::{Moment, Plan, Proxy, Strike, writes};
use tests::{
    MigrateRun, Postgres, Runner, Service, TestDatabase, kept, number_from_environment, programs, run_migrate,
};

const UP: &[&str] = &["up", "--output", "json"];
const VERIFY: &[&str] = &["verify", "--output", "json"];
const SERVICES: [Service; 2] = [Service::Auth, Service::Task];
const PATIENCE: Duration = Duration::from_secs(110);

async fn shared_server() -> SocketAddr {
    local(Postgres::shared().await.address().port)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The tables of a fresh install, without the engine's own.
async fn fresh() -> tests::catalog::Catalog {
    let database = TestDatabase::migrated_both().await;
    owned(snapshot(&database.client().await).await.catalog)
}

fn owned(catalog: tests::catalog::Catalog) -> tests::catalog::Catalog {
    let own = |table: &str| !table.starts_with("public.__") && table != "public.seaql_migrations";
    catalog.into_iter().filter(|(object, _)| own(&object.table)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_at_any_statement_is_ridden_out() {
    let cuts = usize::try_from(number_from_environment("CUTS", 12)).unwrap();
    let template = TestDatabase::from_sql(&fixture("legacy/complete")).await;
    let before = snapshot(&template.client().await).await.rows;
    let fresh = fresh().await;
    let mut failures = Vec::new();
    for service in SERVICES {
        let dry = Proxy::start(shared_server().await, None).await;
        let database = template.copy().await;
        assert_eq!(run_migrate(service, &dry.url(&database.migrator_url()), UP).await.code, 0);
        let statements = dry.statements();
        let points = writes(&statements);
        for number in 0..cuts / 2 {
            let at = points[number * points.len() / (cuts / 2)];
            let moment = [Moment::Before, Moment::Sent, Moment::Answered][number % 3];
            let about =
                format!("{}: cut {moment:?} {at} of {}: {}", service.name(), statements.len(), statements[at - 1]);
            let database = template.copy().await;
            let proxy = Proxy::start(shared_server().await, Some(Plan { at, moment, strike: Strike::Cut })).await;
            let started = Instant::now();
            let run = run_migrate(service, &proxy.url(&database.migrator_url()), UP).await;
            println!("{about}: exit {} after {:.1} s", run.code, started.elapsed().as_secs_f64());
            if !proxy.has_struck() || run.code != 0 {
                failures.push(format!("{about}: {}", run.brief()));
                continue;
            }
            let after = snapshot(&database.client().await).await;
            if let Err(wrong) = kept::compare(&before, &after.rows, &[service]) {
                failures.push(format!("{about}: {}", wrong.join("\n  ")));
            }
            let other = if service == Service::Auth { Service::Task } else { Service::Auth };
            assert_eq!(run_migrate(other, &database.migrator_url(), UP).await.code, 0);
            let after = owned(snapshot(&database.client().await).await.catalog);
            let wrong = catalog_differences(&fresh, &after);
            if !wrong.is_empty() {
                failures.push(format!("{about}: {}", wrong.join("\n  ")));
            }
        }
    }
    assert!(failures.is_empty(), "{} cuts were not ridden out:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_comes_back_is_waited_for_and_one_that_does_not_is_exit_6() {
    let template = TestDatabase::from_sql(&fixture("legacy/incident")).await;
    let away = |pause| Plan { at: 40, moment: Moment::Sent, strike: Strike::Away(pause) };

    let database = template.copy().await;
    let proxy = Proxy::start(shared_server().await, Some(away(Duration::from_secs(3)))).await;
    let run = run_migrate(Service::Auth, &proxy.url(&database.migrator_url()), UP).await;
    assert!(proxy.has_struck());
    assert_eq!(run.code, 0, "{run:#?}");

    let database = template.copy().await;
    let proxy = Proxy::start(shared_server().await, Some(away(Duration::from_secs(3600)))).await;
    let started = Instant::now();
    let waits = [UP, &["--connect-wait", "2s", "--lock-wait", "3s"]].concat();
    let run = run_migrate(Service::Auth, &proxy.url(&database.migrator_url()), &waits).await;
    assert!(proxy.has_struck());
    assert_eq!(run.code, 6, "{run:#?}");
    assert!(run.json()["error"].as_str().unwrap().contains("DATABASE_URL"), "{run:#?}");
    assert!(started.elapsed() < Duration::from_secs(30), "it waited {:?}", started.elapsed());
    // What it left is finished by the next run.
    let run = run_migrate(Service::Auth, &database.migrator_url(), UP).await;
    assert_eq!(run.code, 0, "{run:#?}");
}

/// How the server of a test goes down.
#[derive(Debug, Clone, Copy)]
enum Down {
    /// A fast shutdown, then a start.
    Fast,
    /// An immediate shutdown, then a start with recovery.
    Immediate,
    /// A server process is killed; the server recovers by itself.
    Crash,
}

/// A server of this test's own. It listens elsewhere after each start, as after a failover.
struct Server {
    directory: tempfile::TempDir,
    cluster: Option<Cluster>,
    guard: Guard,
    roles: DatabaseRoles,
}

impl Server {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let guard = Guard::spawn(&programs().local_pair).unwrap();
        let roles = DatabaseRoles::named("failover", "migrator-of-failover", "runtime-of-failover");
        let mut server = Self { directory, cluster: None, guard, roles };
        server.up().await;
        roles_ensure(&server.address(), &server.roles).await.unwrap();
        server
    }

    /// Starts it; with fsync, so that a crash loses nothing.
    async fn up(&mut self) {
        let directory = self.directory.path().join("postgres");
        let started = tokio::task::spawn_blocking(move || {
            let binaries = PostgresBinaries::find_or_install(&mut |_| ()).unwrap();
            Cluster::start(&binaries, &ClusterOptions::durable(directory)).unwrap()
        });
        let cluster = started.await.unwrap();
        self.guard.watch(cluster.process().unwrap().pid, EndBy::Interrupt);
        self.cluster = Some(cluster);
    }

    async fn down(&mut self, down: Down) {
        let cluster = self.cluster.take().unwrap();
        let process = cluster.process().unwrap();
        match down {
            Down::Fast => tokio::task::spawn_blocking(move || cluster.stop().unwrap()).await.unwrap(),
            Down::Immediate | Down::Crash => {
                // SIGQUIT is PostgreSQL's immediate shutdown.
                process.signal(Signal::QUIT);
                let gone = process.clone();
                assert!(tokio::task::spawn_blocking(move || gone.wait_gone(Duration::from_secs(20))).await.unwrap());
            }
        }
        self.guard.forget(process.pid);
    }

    fn address(&self) -> ServerAddress {
        let cluster = self.cluster.as_ref().unwrap();
        ServerAddress { port: cluster.port(), password: cluster.password().to_owned() }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_or_crash_of_the_server_is_ridden_out() {
    let mut server = Server::start().await;
    let dump = Dump::from_text("complete.sql", fixture("legacy/complete")).unwrap();
    let mut failures = Vec::new();
    for (number, down) in [Down::Fast, Down::Immediate, Down::Crash, Down::Crash].into_iter().enumerate() {
        let service = SERVICES[number % 2];
        let name = format!("restart_{number}");
        dump.restore(&server.address(), &name, &server.roles).await.unwrap();
        let before = snapshot(&connect(&server.address().superuser_url(&name)).await.unwrap()).await.rows;
        let proxy = Proxy::start(local(server.address().port), None).await;
        // Slow enough that it is in the middle.
        proxy.delay(Duration::from_millis(5));
        let url = server.address().role_url(&server.roles.migrator, &name);
        let runner = Runner::start(service, &proxy.url(&url), UP);
        proxy.passed(30 + 25 * number).await;
        match down {
            Down::Crash => crash(&server.address(), &name).await,
            _ => {
                server.down(down).await;
                server.up().await;
                proxy.set_upstream(local(server.address().port));
            }
        }
        let run = runner.wait(PATIENCE).await;
        let about = format!("{down:?} in the middle of {} up", service.name());
        let url = server.address().role_url(&server.roles.migrator, &name);
        let verify = if run.code == 0 { run_migrate(service, &url, VERIFY).await.code } else { -1 };
        println!("{about}: exit {}, verify {verify}", run.code);
        if run.code != 0 || verify != 0 {
            failures.push(format!("{about}: {}", run.brief()));
            continue;
        }
        assert!(lost_a_connection(&run), "{about}: the run had ended before: {run:#?}");
        let after = snapshot(&connect(&server.address().superuser_url(&name)).await.unwrap()).await;
        if let Err(wrong) = kept::compare(&before, &after.rows, &[service]) {
            failures.push(format!("{about}: {}", wrong.join("\n  ")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Kills the server process of a session of the run: the server ends all others and recovers.
async fn crash(address: &ServerAddress, database: &str) {
    let client = connect(&address.superuser_url("postgres")).await.unwrap();
    let sql = "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND usename LIKE '%migrator' ORDER BY backend_start LIMIT 1";
    let pid: i32 = client.query_one(sql, &[&database]).await.unwrap().get(0);
    let process = local_pair::process::ProcessIdentity::of(u32::try_from(pid).unwrap()).unwrap();
    process.signal(Signal::KILL);
    // It accepts connections again when it has recovered.
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if client.is_closed() && connect(&address.superuser_url("postgres")).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the server did not come back after the crash");
}

fn lost_a_connection(run: &MigrateRun) -> bool {
    run.stderr.contains("connection lost")
}
