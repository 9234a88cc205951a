-- Loses what watchers could resume from: they begin anew with a snapshot.
DROP TABLE IF EXISTS task_changes;
