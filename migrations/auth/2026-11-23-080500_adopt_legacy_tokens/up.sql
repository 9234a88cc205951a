-- Each legacy refresh token becomes a session of its own, with the token's id: clients stay signed in, for the 30 days
-- that a session of today lasts.

-- engine: data Made a session for each legacy refresh token
INSERT INTO sessions (id, user_id, created_at, last_used_at, expires_at, ended_at, end_reason)
SELECT id, user_id, created_at, updated_at, greatest(expires_at, created_at + interval '30 days'),
    CASE WHEN is_revoked THEN updated_at END, CASE WHEN is_revoked THEN 'legacy_revoked' END
FROM refresh_tokens
WHERE session_id IS NULL /* engine: batch refresh_tokens */
ON CONFLICT (id) DO NOTHING;

-- engine: data Tied legacy refresh tokens to their sessions
-- engine: resolves column refresh_tokens.session_id
UPDATE refresh_tokens SET session_id = id WHERE session_id IS NULL /* engine: batch refresh_tokens */;

-- Whoever has read the table or a backup of it knows these tokens: hash them, and void those still open.
-- engine: data Hashed and voided password-reset tokens that were stored in clear
-- engine: resolves column password_reset_tokens.hash_algorithm
UPDATE password_reset_tokens
SET token_hash = encode(sha256(convert_to(token_hash, 'UTF8')), 'hex'), is_used = true, hash_algorithm = 'sha256'
WHERE hash_algorithm IS NULL /* engine: batch password_reset_tokens */;
