-- Tasks, with the names and types of the legacy table. Every key contains user_id, so that the rows can be
-- distributed by owner. The owner is never null: a task from before sign-in existed belongs to the nil UUID.
-- Checks are written as PostgreSQL prints them (no IN, no BETWEEN), so that their text survives being read and made again.
-- limits_waived marks legacy rows that are longer than today's limits; they keep what they hold.
CREATE TABLE IF NOT EXISTS tasks (
    id uuid NOT NULL,
    title text NOT NULL,
    description text,
    status varchar NOT NULL DEFAULT 'todo',
    due_date timestamptz,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    user_id uuid NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    deleted_at timestamptz,
    limits_waived boolean NOT NULL DEFAULT false,
    CONSTRAINT tasks_pkey PRIMARY KEY (user_id, id),
    CONSTRAINT tasks_status_check CHECK (status::text = ANY (ARRAY['todo'::text, 'in_progress'::text, 'completed'::text, 'cancelled'::text])),
    CONSTRAINT tasks_limits_check CHECK (
        limits_waived OR (char_length(title) >= 1 AND char_length(title) <= 200 AND coalesce(char_length(description), 0) <= 10000)
    )
);
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS id uuid;
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS title text;
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS description text;
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS status varchar DEFAULT 'todo';
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS due_date timestamptz;
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS created_at timestamptz DEFAULT CURRENT_TIMESTAMP;
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS updated_at timestamptz DEFAULT CURRENT_TIMESTAMP;
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS user_id uuid;
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS version bigint NOT NULL DEFAULT 1;
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS deleted_at timestamptz;
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS limits_waived boolean NOT NULL DEFAULT false;

-- Users may live in another database: their deletion arrives by a call, not by a foreign key.
ALTER TABLE tasks DROP CONSTRAINT IF EXISTS fk_tasks_user_id;
