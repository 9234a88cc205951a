-- Loses when tasks were completed: made again it is the time of their last change.
ALTER TABLE tasks DROP COLUMN IF EXISTS completed_at;
