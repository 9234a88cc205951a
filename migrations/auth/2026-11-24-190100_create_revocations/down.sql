-- Loses what is revoked: tokens of the last minutes are good again until they expire.
ALTER TABLE sessions DROP COLUMN IF EXISTS tokens_end_at;
ALTER TABLE service_accounts DROP COLUMN IF EXISTS tokens_revision;
ALTER TABLE roles DROP COLUMN IF EXISTS tokens_revision;
ALTER TABLE users DROP COLUMN IF EXISTS tokens_revision;
DROP TABLE IF EXISTS revocations;
