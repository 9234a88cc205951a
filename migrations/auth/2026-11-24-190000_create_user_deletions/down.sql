-- Loses which tasks are still to be purged.
DROP TABLE IF EXISTS user_deletions;
