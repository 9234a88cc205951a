//! A legacy database of any size, made by SQL.

use tests::TestDatabase;
use tests::legacy::fixture;

/// Indexes and foreign keys are made after the rows, as a restore does.
const LOAD: &str = "
    CREATE TEMPORARY TABLE indexes AS SELECT indexname, indexdef FROM pg_indexes
        WHERE schemaname = 'public' AND tablename IN ('tasks', 'users') AND indexname LIKE 'idx\\_%';
    DO $$ DECLARE i record; BEGIN FOR i IN SELECT * FROM indexes LOOP EXECUTE format('DROP INDEX %I', i.indexname); END LOOP; END $$;
    ALTER TABLE tasks DROP CONSTRAINT fk_tasks_user_id;
    DELETE FROM tasks;
    SET LOCAL synchronous_commit = off;
    INSERT INTO users (id, email, username, password_hash, is_active, email_verified, created_at, updated_at, role_id)
    SELECT ('05e20000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'user' || n || '@example.com', 'user' || n, 'x', true, n % 2 = 0,
        now() - n * interval '1 second', now() - n * interval '1 second', '22222222-2222-4222-8222-222222222222'
    FROM generate_series(1, {users}) n;
    INSERT INTO tasks (id, title, description, status, due_date, created_at, updated_at, user_id)
    SELECT ('7a5c0000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'title ' || n, CASE WHEN n % 4 = 0 THEN 'description of task ' || n END,
        CASE WHEN n % 20 = 0 THEN 'pending' ELSE (ARRAY['todo', 'in_progress', 'completed', 'cancelled'])[1 + n % 4] END,
        CASE WHEN n % 3 = 0 THEN now() + n * interval '1 second' END,
        now() - n * interval '1 second', now() - n * interval '1 second',
        CASE WHEN n % 50 <> 0 THEN ('05e20000-0000-4000-8000-' || lpad((1 + n % {users})::text, 12, '0'))::uuid END
    FROM generate_series(1, {rows}) n;
    ALTER TABLE tasks ADD CONSTRAINT fk_tasks_user_id FOREIGN KEY (user_id) REFERENCES users (id) ON UPDATE CASCADE ON DELETE CASCADE;
    DO $$ DECLARE i record; BEGIN FOR i IN SELECT * FROM indexes LOOP EXECUTE i.indexdef; END LOOP; END $$;";

/// The legacy schema with so many tasks and users: a twentieth of the tasks has the status of the bulk route, a fiftieth no
/// owner.
pub(crate) async fn legacy(rows: u64, users: u64) -> TestDatabase {
    let database = TestDatabase::from_sql(&fixture("legacy/complete")).await;
    let load = LOAD.replace("{rows}", &rows.to_string()).replace("{users}", &users.to_string());
    database.execute(&format!("BEGIN; {load}; COMMIT; ANALYZE tasks, users")).await;
    database.grant().await;
    database
}
