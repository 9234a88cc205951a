-- engine: data Status 'pending' (written by the legacy bulk route) became 'todo'
-- engine: resolves constraint tasks.tasks_status_check where status = 'pending'
UPDATE tasks SET status = 'todo' WHERE status = 'pending' /* engine: batch tasks */;

-- engine: data Tasks without an owner went to the nil UUID: administrators see and reassign them
-- engine: resolves column tasks.user_id
UPDATE tasks SET user_id = '00000000-0000-0000-0000-000000000000' WHERE user_id IS NULL /* engine: batch tasks */;

-- engine: data Tasks longer than today's limits keep their text and are marked
-- engine: resolves constraint tasks.tasks_limits_check
UPDATE tasks SET limits_waived = true
WHERE limits_waived IS NOT TRUE
    AND NOT (char_length(title) BETWEEN 1 AND 200 AND coalesce(char_length(description), 0) <= 10000);
