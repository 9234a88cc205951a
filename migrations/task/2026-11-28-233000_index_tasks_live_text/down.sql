-- Nothing is lost but the index. The extension stays: others may use it.
DROP INDEX IF EXISTS idx_tasks_live_text;
