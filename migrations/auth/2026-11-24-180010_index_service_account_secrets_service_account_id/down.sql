-- Nothing is lost but the index.
DROP INDEX CONCURRENTLY IF EXISTS idx_service_account_secrets_service_account_id;
