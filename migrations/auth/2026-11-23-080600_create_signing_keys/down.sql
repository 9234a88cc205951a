-- Loses the signing keys: every access token that is out becomes invalid.
DROP TABLE IF EXISTS signing_keys;
