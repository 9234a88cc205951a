-- When a task was completed: set with the status, gone when the status changes again.
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS completed_at timestamptz;

-- engine: data Completed tasks got a time of completion: that of their last change, for want of a better one
UPDATE tasks SET completed_at = updated_at WHERE status = 'completed' AND completed_at IS NULL /* engine: batch tasks */;
