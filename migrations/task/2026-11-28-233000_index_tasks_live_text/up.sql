-- What the index over texts is made of. Where it may not or cannot be made searches go on without the index; what may pass is tried again.
DO $$
BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;
EXCEPTION
    WHEN undefined_file THEN
        RAISE WARNING 'pg_trgm is not there: %', SQLERRM;
    WHEN lock_not_available OR deadlock_detected OR serialization_failure OR insufficient_resources OR system_error THEN
        RAISE;
    WHEN OTHERS THEN
        RAISE WARNING 'pg_trgm is not there: %', SQLERRM;
END
$$;

-- On a table without rows at once; on one with rows the engine builds it concurrently, which no block can.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM tasks)
        AND EXISTS (SELECT FROM pg_opclass WHERE opcname = 'gin_trgm_ops' AND pg_opclass_is_visible(oid)) THEN
        CREATE INDEX IF NOT EXISTS idx_tasks_live_text ON tasks USING gin (title gin_trgm_ops, description gin_trgm_ops)
            WHERE deleted_at IS NULL;
    END IF;
END
$$;
