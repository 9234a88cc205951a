-- Accounts that were deleted and whose tasks the task service has still to purge. Written in the transaction of the deletion.
-- A row stays until no token of the account can be good any more: tasks that were made with one in the meantime go with the
-- last purge.
CREATE TABLE IF NOT EXISTS user_deletions (
    user_id uuid NOT NULL,
    deleted_at timestamptz NOT NULL,
    next_attempt_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    CONSTRAINT user_deletions_pkey PRIMARY KEY (user_id)
);
ALTER TABLE user_deletions ADD COLUMN IF NOT EXISTS user_id uuid;
ALTER TABLE user_deletions ADD COLUMN IF NOT EXISTS deleted_at timestamptz;
ALTER TABLE user_deletions ADD COLUMN IF NOT EXISTS next_attempt_at timestamptz;
ALTER TABLE user_deletions ADD COLUMN IF NOT EXISTS attempts integer NOT NULL DEFAULT 0;
