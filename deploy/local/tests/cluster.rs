//! The private cluster for real: as whoever runs the tests (root included), awkward paths, crashes of every part.
#![expect(clippy::unwrap_used, reason = "tests may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use local_pair::postgres::{Cluster, ClusterOptions, PostgresBinaries, PostgresError, ServerAddress, connect};
use local_pair::process::ProcessIdentity;

fn start(directory: &Path) -> Cluster {
    let binaries = PostgresBinaries::find_or_install(&mut |_| ()).unwrap();
    Cluster::start(&binaries, &ClusterOptions::durable(directory)).unwrap()
}

fn address(cluster: &Cluster) -> ServerAddress {
    ServerAddress { port: cluster.port(), password: cluster.password().to_owned() }
}

async fn run(cluster: &Cluster, sql: &str) -> i64 {
    let client = connect(&address(cluster).superuser_url("postgres")).await.unwrap();
    client.batch_execute("CREATE TABLE IF NOT EXISTS kept (n bigint)").await.unwrap();
    client.batch_execute(sql).await.unwrap();
    client.query_one("SELECT count(*) FROM kept", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn data_survive_a_stop_and_a_crash_in_a_closed_directory_with_spaces() {
    let base = tempfile::tempdir().unwrap();
    // As /root is: the unprivileged user cannot pass it.
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let directory = base.path().join("x y/.local, with a name so long that no Unix socket would fit into it, as they end near one hundred bytes/postgres");

    let cluster = start(&directory);
    assert_eq!(run(&cluster, "INSERT INTO kept VALUES (1)").await, 1);
    cluster.stop().unwrap();

    // We are killed: the server stays. The next start proves that it is ours and replaces it.
    let cluster = start(&directory);
    assert_eq!(run(&cluster, "INSERT INTO kept VALUES (2)").await, 2);
    let left_running = cluster.process().unwrap();
    std::mem::forget(cluster);
    let cluster = start(&directory);
    assert!(!left_running.is_alive());
    assert_eq!(run(&cluster, "INSERT INTO kept VALUES (3)").await, 3);

    // The server is killed as well: a stale pid file and a recovery.
    cluster.process().unwrap().signal(rustix::process::Signal::KILL);
    std::mem::forget(cluster);
    let cluster = start(&directory);
    assert_eq!(run(&cluster, "INSERT INTO kept VALUES (4)").await, 4);

    // The pid in the stale file now belongs to a stranger, who must not be touched.
    cluster.process().unwrap().signal(rustix::process::Signal::KILL);
    let data = cluster.data_directory();
    std::mem::forget(cluster);
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    let pid_file = data.join("postmaster.pid");
    let text = fs::read_to_string(&pid_file).unwrap();
    let others = text.split_once('\n').unwrap().1;
    fs::write(&pid_file, format!("{}\n{others}", stranger.id())).unwrap();
    let cluster = start(&directory);
    assert_eq!(run(&cluster, "INSERT INTO kept VALUES (5)").await, 5);
    assert!(ProcessIdentity::of(stranger.id()).is_some(), "the stranger was ended");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    cluster.stop().unwrap();

    Cluster::remove(&directory).unwrap();
    assert!(!directory.exists() && !data.exists());
}

#[tokio::test]
async fn a_directory_removed_by_hand_starts_anew() {
    let base = tempfile::tempdir().unwrap();
    let directory = base.path().join("postgres");
    let cluster = start(&directory);
    run(&cluster, "INSERT INTO kept VALUES (1)").await;
    let left = cluster.data_directory();
    cluster.stop().unwrap();
    fs::remove_dir_all(&directory).unwrap();
    assert!(!Cluster::exists(&directory));
    let cluster = start(&directory);
    assert_eq!(run(&cluster, "SELECT").await, 0);
    drop(cluster);
    Cluster::remove(&directory).unwrap();
    if let Some(elsewhere) = left.parent().filter(|place| place.exists()) {
        fs::remove_dir_all(elsewhere).unwrap();
    }
}

#[tokio::test]
async fn a_foreign_cluster_is_neither_stopped_nor_removed() {
    let base = tempfile::tempdir().unwrap();
    // Open to others, so that the data lie in the directory itself.
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let directory = base.path().join("postgres");
    let foreign = start(&directory);
    run(&foreign, "INSERT INTO kept VALUES (1)").await;
    // Now it looks as any PostgreSQL does: nothing but `data` and a log.
    for ours in [".local-pair", "superuser-password"] {
        fs::remove_file(directory.join(ours)).unwrap();
    }

    let binaries = PostgresBinaries::find_or_install(&mut |_| ()).unwrap();
    for outcome in [
        Cluster::check(&directory),
        Cluster::start(&binaries, &ClusterOptions::durable(&directory)).map(drop),
        Cluster::remove(&directory),
    ] {
        let error = outcome.unwrap_err();
        assert!(matches!(&error, PostgresError::InTheWay(text) if text.contains("was not made by")), "{error}");
    }
    assert!(foreign.process().unwrap().is_alive());
    assert_eq!(run(&foreign, "INSERT INTO kept VALUES (2)").await, 2);
}

#[tokio::test]
async fn a_half_made_cluster_is_made_again_and_complete_data_never() {
    let base = tempfile::tempdir().unwrap();
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let directory = base.path().join("postgres");
    let cluster = start(&directory);
    run(&cluster, "INSERT INTO kept VALUES (1)").await;
    let data = cluster.data_directory();
    cluster.stop().unwrap();

    // The password is lost: the data are complete all the same.
    let password = directory.join("superuser-password");
    let saved = fs::read(&password).unwrap();
    fs::remove_file(&password).unwrap();
    let binaries = PostgresBinaries::find_or_install(&mut |_| ()).unwrap();
    let error = Cluster::start(&binaries, &ClusterOptions::durable(&directory)).unwrap_err();
    assert!(error.to_string().contains("superuser-password is gone"), "{error}");
    fs::write(&password, saved).unwrap();
    let cluster = start(&directory);
    assert_eq!(run(&cluster, "INSERT INTO kept VALUES (2)").await, 2);
    cluster.stop().unwrap();

    // As a run leaves it that is killed while initdb works.
    fs::rename(&password, directory.join("initdb-password")).unwrap();
    fs::remove_file(data.join("global/pg_control")).unwrap();
    let cluster = start(&directory);
    assert_eq!(run(&cluster, "SELECT").await, 0);
    assert!(!directory.join("initdb-password").exists());
    cluster.stop().unwrap();
    Cluster::remove(&directory).unwrap();
    assert!(!directory.exists());
}

#[tokio::test]
async fn a_moved_directory_finds_its_data_and_a_copy_or_a_wrong_pointer_takes_nobody_elses() {
    let base = tempfile::tempdir().unwrap();
    // As /root is: for root the data lie elsewhere, and the directory holds a pointer.
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let (before, after) = (base.path().join("before"), base.path().join("after"));
    let cluster = start(&before.join("postgres"));
    run(&cluster, "INSERT INTO kept VALUES (1)").await;
    cluster.stop().unwrap();
    fs::rename(&before, &after).unwrap();

    // A new cluster in the old place does not take the moved one's data.
    let newer = start(&before.join("postgres"));
    assert_eq!(run(&newer, "SELECT").await, 0);
    let moved = start(&after.join("postgres"));
    assert_eq!(run(&moved, "INSERT INTO kept VALUES (2)").await, 2);

    let pointer = after.join("postgres/location");
    if pointer.exists() {
        let binaries = PostgresBinaries::find_or_install(&mut |_| ()).unwrap();
        let copy = base.path().join("copy");
        fs::create_dir_all(&copy).unwrap();
        for name in [".local-pair", "location"] {
            fs::copy(after.join("postgres").join(name), copy.join(name)).unwrap();
        }
        let refused = |directory: &Path, part: &str| {
            let error = Cluster::start(&binaries, &ClusterOptions::durable(directory)).unwrap_err();
            assert!(matches!(&error, PostgresError::InTheWay(text) if text.contains(part)), "{error}");
            assert!(!Cluster::exists(directory));
        };
        refused(&copy, "of which this is a copy");
        for (text, part) in [
            (fs::read_to_string(before.join("postgres/location")).unwrap(), "another directory"),
            ("/var/lib/local-pair/0123456789abcdef\n".to_owned(), "is gone"),
            ("/var/lib/local-pair/..\n".to_owned(), "is no directory in"),
            ("/var/lib/postgresql\n".to_owned(), "is no directory in"),
        ] {
            fs::write(copy.join("location"), &text).unwrap();
            refused(&copy, part);
            assert_eq!(fs::read_to_string(copy.join("location")).unwrap(), text, "the pointer was overwritten");
        }
        fs::copy(&pointer, copy.join("location")).unwrap();
        Cluster::remove(&copy).unwrap();
        assert!(!copy.exists());
    }
    assert_eq!(run(&newer, "INSERT INTO kept VALUES (1)").await, 1);
    assert_eq!(run(&moved, "INSERT INTO kept VALUES (3)").await, 3);
    let places = [newer.data_directory(), moved.data_directory()];
    drop((newer, moved));
    for directory in [&before, &after] {
        Cluster::remove(&directory.join("postgres")).unwrap();
    }
    assert!(places.iter().all(|place| !place.exists()));
}
