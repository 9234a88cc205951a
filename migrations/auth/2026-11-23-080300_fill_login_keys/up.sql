-- Keys of plain ASCII addresses and names. The others need Unicode case folding, which the service's own
-- migration step computes with the code that sign-in uses. Among accounts that differ only by case the oldest gets the key,
-- unless another one has it already. One pass over the table: an anti-join on the empty key column would be quadratic.

-- engine: data Computed the case-insensitive key of e-mail addresses
UPDATE users
SET email_key = ranked.key
FROM (
    SELECT id, key, row_number() OVER (PARTITION BY key ORDER BY taken DESC, created_at, id) AS place
    FROM (
        SELECT id, created_at, email_key IS NOT NULL AS taken, coalesce(email_key, lower(email COLLATE "C")) AS key
        FROM users
        WHERE (email_key IS NOT NULL OR octet_length(email) = char_length(email))
            /* engine: batch users by coalesce(email_key, lower(email COLLATE "C")) */
    ) AS keyed
) AS ranked
WHERE ranked.id = users.id AND ranked.place = 1 AND users.email_key IS NULL;

-- engine: data Computed the case-insensitive key of user names
UPDATE users
SET username_key = ranked.key
FROM (
    SELECT id, key, row_number() OVER (PARTITION BY key ORDER BY taken DESC, created_at, id) AS place
    FROM (
        SELECT id, created_at, username_key IS NOT NULL AS taken, coalesce(username_key, lower(username COLLATE "C")) AS key
        FROM users
        WHERE (username_key IS NOT NULL OR octet_length(username) = char_length(username))
            /* engine: batch users by coalesce(username_key, lower(username COLLATE "C")) */
    ) AS keyed
) AS ranked
WHERE ranked.id = users.id AND ranked.place = 1 AND users.username_key IS NULL;
