-- What has happened to tasks in the last hours, a row for each change, written in the transaction of the change: WatchTasks reads it.
-- xact is the number of that transaction. A reader remembers a snapshot of transactions, so that one that commits late is not
-- left out, and nobody who writes waits for anybody. What stands here is the task after the change, its texts cut as in lists.
-- kind: upserted; deleted, also for good; moved, to another owner. The key contains user_id, as that of tasks does.
CREATE TABLE IF NOT EXISTS task_changes (
    user_id uuid NOT NULL,
    xact bigint NOT NULL,
    task_id uuid NOT NULL,
    version bigint NOT NULL,
    kind varchar NOT NULL,
    changed_at timestamptz NOT NULL,
    title text NOT NULL,
    description text,
    status varchar NOT NULL,
    due_date timestamptz,
    created_at timestamptz NOT NULL,
    CONSTRAINT task_changes_pkey PRIMARY KEY (user_id, xact, task_id, version)
);
ALTER TABLE task_changes ADD COLUMN IF NOT EXISTS user_id uuid;
ALTER TABLE task_changes ADD COLUMN IF NOT EXISTS xact bigint;
ALTER TABLE task_changes ADD COLUMN IF NOT EXISTS task_id uuid;
ALTER TABLE task_changes ADD COLUMN IF NOT EXISTS version bigint;
ALTER TABLE task_changes ADD COLUMN IF NOT EXISTS kind varchar;
ALTER TABLE task_changes ADD COLUMN IF NOT EXISTS changed_at timestamptz;
ALTER TABLE task_changes ADD COLUMN IF NOT EXISTS title text;
ALTER TABLE task_changes ADD COLUMN IF NOT EXISTS description text;
ALTER TABLE task_changes ADD COLUMN IF NOT EXISTS status varchar;
ALTER TABLE task_changes ADD COLUMN IF NOT EXISTS due_date timestamptz;
ALTER TABLE task_changes ADD COLUMN IF NOT EXISTS created_at timestamptz;
