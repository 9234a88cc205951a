//! The private cluster for real: as whoever runs the tests (root included), awkward paths, crashes of every part.
#![expect(clippy::unwrap_used, reason = "tests may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use local_pair::postgres::{Cluster, ClusterOptions, PostgresBinaries, ServerAddress, connect};
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
    cluster.stop().unwrap();
    fs::remove_dir_all(&directory).unwrap();
    assert!(!Cluster::exists(&directory));
    let cluster = start(&directory);
    assert_eq!(run(&cluster, "SELECT").await, 0);
    drop(cluster);
    Cluster::remove(&directory).unwrap();
}
