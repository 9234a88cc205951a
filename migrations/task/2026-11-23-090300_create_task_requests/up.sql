-- Which task a client's request id made, so that a repeated call answers the first result.
CREATE TABLE IF NOT EXISTS task_requests (
    user_id uuid NOT NULL,
    request_id uuid NOT NULL,
    task_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT task_requests_pkey PRIMARY KEY (user_id, request_id)
);
ALTER TABLE task_requests ADD COLUMN IF NOT EXISTS user_id uuid;
ALTER TABLE task_requests ADD COLUMN IF NOT EXISTS request_id uuid;
ALTER TABLE task_requests ADD COLUMN IF NOT EXISTS task_id uuid;
ALTER TABLE task_requests ADD COLUMN IF NOT EXISTS created_at timestamptz DEFAULT CURRENT_TIMESTAMP;
