//! Dumps are loaded whole or not at all, and the two roles can do exactly what they are for.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

use local_pair::postgres::{
    Cluster, ClusterOptions, DatabaseRoles, Dump, PostgresBinaries, PostgresError, SUPERUSER, ServerAddress, connect,
    database_create, database_exists, roles_ensure,
};
use tempfile::TempDir;

struct Server {
    _cluster: Cluster,
    address: ServerAddress,
    roles: DatabaseRoles,
    directory: TempDir,
}

impl Server {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let binaries = PostgresBinaries::find_or_install(&mut |_| ()).unwrap();
        let cluster = Cluster::start(&binaries, &ClusterOptions::for_tests(directory.path().join("postgres"))).unwrap();
        let address = ServerAddress { port: cluster.port(), password: cluster.password().to_owned() };
        let roles = DatabaseRoles::named("pair", "aa", "bb");
        roles_ensure(&address, &roles).await.unwrap();
        Self { _cluster: cluster, address, roles, directory }
    }

    async fn refuse(&self, dump: &str) -> (usize, String) {
        let error = match Dump::from_text("broken.sql", dump) {
            Ok(dump) => dump.restore(&self.address, "broken", &self.roles).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(!database_exists(&self.address, "broken").await.unwrap(), "half a database is left");
        let PostgresError::Dump { file, line, message } = error else { panic!("{error}") };
        assert_eq!(file, "broken.sql");
        assert!(!message.contains('\n'), "{message:?}");
        (line, message)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        Cluster::remove(&self.directory.path().join("postgres")).unwrap();
    }
}

/// What pg_dump of a foreign server writes: owners and grantees that do not exist here, COPY data with hard characters.
const DUMP: &str = r#"--
-- PostgreSQL database dump
--
\restrict dCbaXyz
SET statement_timeout = 0;
SET transaction_timeout = 0;
SET some_setting_of_a_later_version = 0;
SET client_encoding = 'UTF8';
SELECT pg_catalog.set_config('search_path', '', false);
CREATE DATABASE legacy WITH TEMPLATE = template0 ENCODING = 'UTF8';
ALTER DATABASE legacy OWNER TO taskapp;
\connect legacy
SET check_function_bodies = false;
CREATE EXTENSION IF NOT EXISTS pgcrypto WITH SCHEMA public;
CREATE TYPE public.mood AS ENUM ('good', 'bad');
ALTER TYPE public.mood OWNER TO taskapp;
CREATE FUNCTION public.twice(n integer) RETURNS integer LANGUAGE sql AS $_$ SELECT $1 * 2; $_$;
ALTER FUNCTION public.twice(n integer) OWNER TO taskapp;
CREATE TABLE public.notes (id bigint NOT NULL, body text, m public.mood);
ALTER TABLE public.notes OWNER TO taskapp;
CREATE SEQUENCE public.notes_id_seq START WITH 1;
ALTER SEQUENCE public.notes_id_seq OWNER TO taskapp;
ALTER SEQUENCE public.notes_id_seq OWNED BY public.notes.id;
CREATE VIEW public.bodies AS SELECT body FROM public.notes;
ALTER VIEW public.bodies OWNER TO "Odd Owner";
COPY public.notes (id, body, m) FROM stdin;
1	semi;colon 'quote' "double" $$dollar$$	good
2	back\\slash\ttab\nnewline \\.	bad
3	\N	\N
4	バックアップ	good
\.

SELECT pg_catalog.setval('public.notes_id_seq', 4, true);
REVOKE USAGE ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO PUBLIC;
GRANT SELECT ON TABLE public.notes TO reporting;
--
-- PostgreSQL database dump complete
--
\unrestrict dCbaXyz
"#;

#[tokio::test]
async fn a_foreign_dump_is_loaded_and_given_to_the_migrator() {
    let server = Server::start().await;
    let report =
        Dump::from_text("dump.sql", DUMP).unwrap().restore(&server.address, "pair", &server.roles).await.unwrap();
    assert_eq!(report.copied_rows, 4);
    assert_eq!(report.roles_created, ["Odd Owner", "reporting", "taskapp"]);
    assert!(report.left_out.iter().any(|what| what == "CREATE DATABASE LEGACY"), "{report:?}");

    let runtime = connect(&server.address.role_url(&server.roles.runtime, "pair")).await.unwrap();
    let body: String = runtime.query_one("SELECT body FROM notes WHERE id = 2", &[]).await.unwrap().get(0);
    assert_eq!(body, "back\\slash\ttab\nnewline \\.");
    runtime.batch_execute("INSERT INTO notes VALUES (nextval('notes_id_seq'), 'x'); UPDATE notes SET body = 'y' WHERE id = 5; DELETE FROM notes WHERE id = 5").await.unwrap();
    for forbidden in [
        "CREATE TABLE mine ()",
        "CREATE TEMP TABLE mine ()",
        "ALTER TABLE notes ADD x int",
        "DROP TABLE notes",
        "TRUNCATE notes",
        "CREATE INDEX ON notes (body)",
        "CREATE SCHEMA mine",
        "SET ROLE pair_migrator",
    ] {
        assert!(runtime.batch_execute(forbidden).await.is_err(), "the runtime role may run {forbidden}");
    }

    let migrator = connect(&server.address.role_url(&server.roles.migrator, "pair")).await.unwrap();
    migrator
        .batch_execute(
            "ALTER TABLE notes ADD extra int; ALTER TYPE mood ADD VALUE 'mixed'; ALTER FUNCTION twice(int) COST 5;
             DROP VIEW bodies; CREATE TABLE later (id bigserial)",
        )
        .await
        .unwrap();
    runtime.batch_execute("INSERT INTO later DEFAULT VALUES; SELECT * FROM later").await.unwrap();
    assert!(migrator.batch_execute("CREATE ROLE more").await.is_err());
}

#[tokio::test]
async fn the_legacy_shape_of_a_script_with_its_own_transaction_loads() {
    let server = Server::start().await;
    let dump = "BEGIN;\nCREATE TABLE t (id int);\nINSERT INTO t VALUES (1), (2);\nCOMMIT;\n";
    let report =
        Dump::from_text("script.sql", dump).unwrap().restore(&server.address, "pair", &server.roles).await.unwrap();
    assert_eq!((report.statements, report.copied_rows), (4, 0));
}

#[tokio::test]
async fn a_broken_dump_is_one_line_with_its_place_and_leaves_nothing() {
    let server = Server::start().await;
    let roles = "ALTER TABLE t OWNER TO passing_by;\n";
    for (dump, line, part) in [
        (
            format!("CREATE TABLE t (id int);\n{roles}\nCREATE TABLE u (\n  id int,\n  id int\n);"),
            4,
            "specified more than once",
        ),
        ("CREATE TABLE t (id int);\n\nINSERT INTO t\n  VALUS (1);".to_owned(), 4, "syntax error"),
        ("CREATE TABLE t (id int);\nCOPY t FROM stdin;\n1\n2\nthree\n\\.\n".to_owned(), 5, "invalid input syntax"),
        ("CREATE TABLE t (id int);\nCOPY t FROM stdin;\n1\n".to_owned(), 2, "cut off"),
        ("BEGIN;\nCREATE TABLE t (id int);\n".to_owned(), 2, "not committed"),
        ("BEGIN;\nCREATE TABLE t (id int);\nSELECT 'open".to_owned(), 3, "cut off"),
        ("-- PostgreSQL database dump\n\nCREATE TABLE t (id int);\n".to_owned(), 3, "cut off"),
        ("\\! touch /tmp/never\nSELECT 1;".to_owned(), 1, "not understood"),
        ("-- nothing\n".to_owned(), 1, "no SQL statement"),
        ("Dear all,\nplease find the dump attached.\n".to_owned(), 1, "syntax error"),
    ] {
        let (at, message) = server.refuse(&dump).await;
        assert!(at == line && message.contains(part), "{dump:?}: {at}: {message}");
    }
    let client = connect(&server.address.superuser_url(SUPERUSER)).await.unwrap();
    assert!(client.query_opt("SELECT FROM pg_roles WHERE rolname = 'passing_by'", &[]).await.unwrap().is_none());
}

#[tokio::test]
async fn an_existing_database_is_not_loaded_over() {
    let server = Server::start().await;
    database_create(&server.address, "pair", &server.roles).await.unwrap();
    let client = connect(&server.address.superuser_url("pair")).await.unwrap();
    client.batch_execute("CREATE TABLE precious ()").await.unwrap();
    let error = Dump::from_text("x.sql", "SELECT 1")
        .unwrap()
        .restore(&server.address, "pair", &server.roles)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("already exists"), "{error}");
    client.batch_execute("SELECT FROM precious").await.unwrap();
}

#[test]
fn archives_are_recognised_before_a_server_is_needed() {
    let directory = tempfile::tempdir().unwrap();
    for (bytes, part) in [
        (&b"PGDMP\x01"[..], "pg_restore"),
        (&b"\x1f\x8b\x08"[..], "gunzip"),
        (&b"SELECT 1;\nSELECT '\xe9'"[..], ":2: not UTF-8"),
    ] {
        let file = directory.path().join("dump.sql");
        std::fs::write(&file, bytes).unwrap();
        let error = Dump::read(&file).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
