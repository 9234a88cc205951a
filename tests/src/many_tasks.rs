//! A table of tasks as it is after years: many owners, one of whom has many tasks.

use tokio_postgres::Client;

/// Inserts `rows` tasks: `of_one` of them for `owner`, one in fifty deleted, one in three without a due date, statuses as they come about.
/// The indexes are made afterwards, which is what loading many rows asks for.
pub async fn fill_tasks(client: &Client, owner: &str, of_one: u64, rows: u64) {
    let definitions = "SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index i
         WHERE i.indrelid = 'tasks'::regclass AND NOT i.indisunique";
    let indexes = client.query(definitions, &[]).await.expect("the indexes of tasks");
    for index in &indexes {
        let drop = format!("DROP INDEX {}", index.get::<_, String>(0));
        client.batch_execute(&drop).await.expect("an index is dropped");
    }
    let insert = format!(
        "INSERT INTO tasks (id, user_id, title, description, status, due_date, created_at, updated_at, deleted_at, completed_at)
         SELECT gen_random_uuid(), owner, md5(n::text) || ' task ' || n, repeat(md5((n + 1)::text), 3), status,
             CASE WHEN n % 3 <> 0 THEN now() + (n % 20011 - 10000) * interval '1 hour' END, made, made + (n % 977) * interval '1 minute',
             CASE WHEN n % 50 = 0 THEN now() END, CASE WHEN status = 'completed' THEN made END
         FROM (SELECT n, CASE WHEN n <= {of_one} THEN '{owner}'::uuid ELSE md5((n / 40)::text)::uuid END AS owner,
                 (ARRAY['todo', 'completed', 'completed', 'completed', 'in_progress', 'completed', 'cancelled', 'completed'])[1 + n % 8] AS status,
                 now() - ((n * 7919) % {rows}) * interval '13 seconds' AS made
             FROM generate_series(1, {rows}::bigint) AS n) AS many"
    );
    client.batch_execute(&insert).await.expect("the tasks are made");
    client.batch_execute("SET maintenance_work_mem = '512MB'").await.expect("a setting");
    for index in &indexes {
        client.batch_execute(&index.get::<_, String>(1)).await.expect("an index is made");
    }
    client.batch_execute("VACUUM ANALYZE tasks").await.expect("tasks are analysed");
}
