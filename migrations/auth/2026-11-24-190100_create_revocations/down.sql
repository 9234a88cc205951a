-- Loses what is revoked: tokens of the last minutes are good again until they expire.
ALTER TABLE roles DROP COLUMN IF EXISTS tokens_not_before;
ALTER TABLE users DROP COLUMN IF EXISTS tokens_not_before;
DROP TABLE IF EXISTS revocations;
