//! Where a case starts: databases as they are found, each made once and copied for every case.

use tests::TestDatabase;
use tests::legacy::fixture;

/// A start state.
pub(crate) struct State {
    /// As the table prints it.
    pub(crate) name: &'static str,
    /// Copied for each case; nobody is connected to it.
    pub(crate) template: TestDatabase,
}

/// Rows as a running pair leaves them.
const FILLED: &str = "
    INSERT INTO users (id, email, username, password_hash, role_id, email_key, username_key)
    SELECT gen_random_uuid(), 'U' || n || '@example.com', 'u' || n, 'x', (SELECT id FROM roles WHERE name = 'member'),
        'u' || n || '@example.com', 'u' || n FROM generate_series(1, 20) n;
    INSERT INTO roles (name, display_name) VALUES ('auditor', 'Auditor'), ('writer', 'Writer');
    UPDATE users SET role_id = (SELECT id FROM roles WHERE name = 'auditor') WHERE username IN ('u3', 'u4');
    UPDATE users SET role_id = (SELECT id FROM roles WHERE name = 'admin') WHERE username = 'u1';
    INSERT INTO role_permissions (role_id, permission)
    SELECT id, p FROM roles, unnest(ARRAY['users.read', 'tasks.read', 'audit.read']) p WHERE name <> 'writer';
    INSERT INTO sessions (id, user_id, expires_at, user_agent) SELECT gen_random_uuid(), id, now() + '1 day', 'curl' FROM users;
    INSERT INTO refresh_tokens (id, user_id, token_hash, expires_at, session_id)
    SELECT gen_random_uuid(), user_id, encode(sha256(id::text::bytea), 'hex'), expires_at, id FROM sessions;
    INSERT INTO password_reset_tokens (id, user_id, token_hash, expires_at, hash_algorithm)
    SELECT gen_random_uuid(), id, encode(sha256(username::bytea), 'hex'), now() + '1 hour', 'sha256' FROM users LIMIT 5;
    INSERT INTO signing_keys (kid, algorithm, public_key, private_key_sealed, activates_at)
    VALUES ('k1', 'EdDSA', '\\x01', '\\x02', now()), ('k2', 'EdDSA', '\\x03', '\\x04', now());
    INSERT INTO tasks (id, user_id, title, status, due_date)
    SELECT gen_random_uuid(), id, 'title of ' || username, (ARRAY['todo', 'in_progress', 'completed', 'cancelled'])[1 + n % 4],
        CASE WHEN n % 3 = 0 THEN now() + n * interval '1 hour' END FROM users, generate_series(1, 2) n;
    INSERT INTO task_requests (user_id, request_id, task_id) SELECT user_id, gen_random_uuid(), id FROM tasks LIMIT 10;";

/// The legacy schema with rows enough that keys, duplicates and statuses of all kinds are there.
const LEGACY_FILLED: &str = "
    INSERT INTO users (id, email, username, password_hash, role_id)
    SELECT gen_random_uuid(), 'l' || n || '@example.com', 'l' || n, 'x', (SELECT id FROM roles WHERE name = 'member')
    FROM generate_series(1, 20) n;
    INSERT INTO tasks (id, user_id, title, status)
    SELECT gen_random_uuid(), CASE WHEN n < 3 THEN id END, 'title of ' || username, (ARRAY['todo', 'pending', 'completed'])[n]
    FROM users, generate_series(1, 3) n;
    INSERT INTO refresh_tokens (id, user_id, token_hash, expires_at)
    SELECT gen_random_uuid(), id, encode(sha256(id::text::bytea), 'hex'), now() + '1 day' FROM users;
    INSERT INTO password_reset_tokens (id, user_id, token_hash, expires_at)
    SELECT gen_random_uuid(), id, 'clear ' || id, now() + '1 hour' FROM users LIMIT 7;";

/// All start states.
pub(crate) async fn all() -> Vec<State> {
    let fresh = TestDatabase::migrated_both().await;
    fresh.execute(FILLED).await;
    let mut states = vec![
        State { name: "fresh install, filled", template: fresh },
        State { name: "empty", template: TestDatabase::empty().await },
    ];
    let legacy = [
        ("incident", "legacy/incident"),
        ("complete (SeaORM)", "legacy/complete"),
        ("half by hand", "legacy/half_by_hand"),
        ("hand repaired", "legacy/hand_repaired"),
    ];
    for (name, file) in legacy {
        states.push(State { name, template: TestDatabase::from_sql(&fixture(file)).await });
    }
    let filled = TestDatabase::from_sql(&fixture("legacy/complete")).await;
    filled.execute(LEGACY_FILLED).await;
    states.push(State { name: "complete, filled", template: filled });
    // Half of all cases start from what is found most often.
    let again = states[0].template.copy().await;
    states.push(State { name: states[0].name, template: again });
    let again = states[6].template.copy().await;
    states.push(State { name: states[6].name, template: again });
    states
}
