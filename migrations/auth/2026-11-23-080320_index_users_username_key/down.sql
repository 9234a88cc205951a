DROP INDEX CONCURRENTLY IF EXISTS users_username_key_key;
