//! TLS to a real PostgreSQL: every `sslmode` against a server with and without TLS, right and wrong authorities and hosts.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use crate::cluster::Postgres;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use service_kit::database::Database;
use service_kit::postgres::{ConnectErrorKind, DatabaseUrl, connect};

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Puts a certificate for `host` into the data directory and makes the server read it.
async fn certify(postgres: &Postgres, authority: &CertifiedIssuer<'static, KeyPair>, host: &str) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    let data = postgres.cluster.data_directory();
    let owner = std::fs::metadata(&data).unwrap();
    for (name, text) in [("server.crt", certificate.pem()), ("server.key", key.serialize_pem())] {
        let path = data.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    administer(postgres, &["ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"]).await;
}

async fn administer(postgres: &Postgres, statements: &[&str]) {
    let (client, connection) = connect(&postgres.url("sslmode=prefer")).await.unwrap();
    let driver = tokio::spawn(connection);
    for statement in statements {
        client.batch_execute(statement).await.unwrap();
    }
    drop(client);
    driver.await.unwrap().unwrap();
    // The postmaster takes the signal up a moment later.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
}

/// Only these lines decide who may connect.
async fn admit(postgres: &Postgres, lines: &str) {
    std::fs::write(postgres.cluster.data_directory().join("pg_hba.conf"), lines).unwrap();
    administer(postgres, &["SELECT pg_reload_conf()"]).await;
}

/// Whether the connection is encrypted, as the server sees it, or why there is none.
async fn encrypted(url: &DatabaseUrl) -> Result<bool, ConnectErrorKind> {
    let (client, connection) = connect(url).await.map_err(|error| {
        let line = error.to_string();
        assert!(
            !line.contains('\n')
                && !line.contains(url.config().get_password().map(|p| std::str::from_utf8(p).unwrap()).unwrap()),
            "{line}"
        );
        error.kind()
    })?;
    let driver = tokio::spawn(connection);
    let row = client.query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await.unwrap();
    drop(client);
    driver.await.unwrap().unwrap();
    Ok(row.get(0))
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sslmode_means_what_libpq_means_by_it() {
    let postgres = Postgres::start();
    let directory = tempfile::tempdir().unwrap();
    let (ours, foreign) = (authority("ours"), authority("foreign"));
    let our_root = format!("sslrootcert={}", write(directory.path(), "ours.pem", &ours.pem()).display());
    let foreign_root = format!("sslrootcert={}", write(directory.path(), "foreign.pem", &foreign.pem()).display());
    let missing_root = format!("sslrootcert={}/none.pem", directory.path().display());
    let empty_root = format!("sslrootcert={}", write(directory.path(), "empty.pem", "no certificate\n").display());
    let at = async |host: &str, parameters: &str| encrypted(&postgres.url_at(host, parameters)).await;
    let tls_error = Err(ConnectErrorKind::Tls);

    // A server without TLS.
    for (mode, expected) in [
        ("disable", Ok(false)),
        ("allow", Ok(false)),
        ("prefer", Ok(false)),
        ("require", tls_error),
        ("verify-full", tls_error),
    ] {
        assert_eq!(at("127.0.0.1", &format!("sslmode={mode}&{our_root}")).await, expected, "{mode} without TLS");
    }

    // A server with a certificate for `localhost`, reached by that name and by an address that is not in it.
    certify(&postgres, &ours, "localhost").await;
    for (host, parameters, expected) in [
        ("127.0.0.1", "sslmode=disable".to_owned(), Ok(false)),
        ("127.0.0.1", "sslmode=allow".to_owned(), Ok(false)),
        ("127.0.0.1", "sslmode=prefer".to_owned(), Ok(true)),
        ("127.0.0.1", "sslmode=require".to_owned(), Ok(true)),
        ("127.0.0.1", format!("sslmode=require&{our_root}"), Ok(true)),
        ("127.0.0.1", format!("sslmode=require&{foreign_root}"), tls_error),
        ("127.0.0.1", format!("sslmode=verify-ca&{our_root}"), Ok(true)),
        ("127.0.0.1", format!("sslmode=verify-ca&{foreign_root}"), tls_error),
        ("localhost", format!("sslmode=verify-full&{our_root}"), Ok(true)),
        ("127.0.0.1", format!("sslmode=verify-full&{our_root}"), tls_error),
        ("localhost", format!("sslmode=verify-full&{foreign_root}"), tls_error),
        ("localhost", format!("sslmode=verify-full&{missing_root}"), tls_error),
        ("localhost", format!("sslmode=verify-full&{empty_root}"), tls_error),
        ("localhost", "sslmode=verify-full&sslrootcert=system".to_owned(), tls_error),
    ] {
        assert_eq!(at(host, &parameters).await, expected, "{host} {parameters}");
    }

    // The server insists on TLS, then on none.
    admit(&postgres, "hostssl all all 127.0.0.1/32 scram-sha-256\n").await;
    assert_eq!(at("127.0.0.1", "sslmode=disable").await, Err(ConnectErrorKind::Authentication));
    assert_eq!(at("127.0.0.1", "sslmode=allow").await, Ok(true));
    admit(&postgres, "hostnossl all all 127.0.0.1/32 scram-sha-256\n").await;
    assert_eq!(at("127.0.0.1", "sslmode=prefer").await, Ok(false));
    assert_eq!(at("127.0.0.1", "sslmode=require").await, Err(ConnectErrorKind::Authentication));
    admit(&postgres, "host all all 127.0.0.1/32 scram-sha-256\n").await;

    // The pool takes up a replaced authority.
    let root = write(directory.path(), "root.pem", &ours.pem());
    let url = postgres.url_at("localhost", &format!("sslmode=verify-full&sslrootcert={}", root.display()));
    let database = Database::new(&url, 1).unwrap();
    database.ping().await.unwrap();
    certify(&postgres, &foreign, "localhost").await;
    std::fs::write(&root, foreign.pem()).unwrap();
    administer(&postgres, &["SELECT pg_terminate_backend(pid) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND pid <> pg_backend_pid()"]).await;
    database.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_apart() {
    let postgres = Postgres::shared();
    let url = |user: &str, password: &str, port: u16, name: &str| -> DatabaseUrl {
        format!("postgres://{user}:{password}@127.0.0.1:{port}/{name}?sslmode=disable").parse().unwrap()
    };
    let (password, port) = (postgres.cluster.password(), postgres.cluster.port());
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(
        encrypted(&url("postgres", "wrong-password", port, "postgres")).await,
        Err(ConnectErrorKind::Authentication)
    );
    assert_eq!(encrypted(&url("postgres", password, port, "nowhere")).await, Err(ConnectErrorKind::Authentication));
    assert_eq!(encrypted(&url("postgres", password, closed, "postgres")).await, Err(ConnectErrorKind::Unreachable));
    let host = "no-such-host.invalid";
    let unknown: DatabaseUrl = format!("postgres://u:pass-word@{host}/x").parse().unwrap();
    assert_eq!(encrypted(&unknown).await, Err(ConnectErrorKind::Unreachable));

    // Somebody who accepts and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let url: DatabaseUrl = format!("postgres://u:pass-word@127.0.0.1:{port}/x?connect_timeout=1").parse().unwrap();
    let started = std::time::Instant::now();
    assert_eq!(encrypted(&url).await, Err(ConnectErrorKind::Unreachable));
    assert!(started.elapsed() < std::time::Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn unix_sockets_work_whatever_sslmode_says() {
    let postgres = Postgres::shared();
    let (password, port) = (postgres.cluster.password(), postgres.cluster.port());
    // The cluster has no socket of its own, so one in front of its port takes the bytes there.
    let directory = tempfile::tempdir().unwrap();
    let listener = tokio::net::UnixListener::bind(directory.path().join(".s.PGSQL.6543")).unwrap();
    let forward = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        tokio::io::copy_bidirectional(&mut near, &mut far).await.unwrap();
    });
    let directory = directory.path().display();
    let url =
        format!("postgres:///postgres?host={directory}&port=6543&user=postgres&password={password}&sslmode=require");
    assert_eq!(encrypted(&url.parse().unwrap()).await, Ok(false));
    forward.await.unwrap();
}
