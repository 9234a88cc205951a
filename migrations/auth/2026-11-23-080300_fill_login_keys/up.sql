-- Keys of plain ASCII addresses and names. The others need Unicode case folding, which the service's own
-- migration step computes with the code that sign-in uses. Among accounts that differ only by case the oldest gets the key.

-- engine: data Computed the case-insensitive key of e-mail addresses
UPDATE users
SET email_key = ranked.key
FROM (
    SELECT id, lower(email COLLATE "C") AS key,
        row_number() OVER (PARTITION BY lower(email COLLATE "C") ORDER BY created_at, id) AS place
    FROM users
    WHERE octet_length(email) = char_length(email)
) AS ranked
WHERE ranked.id = users.id AND ranked.place = 1 AND users.email_key IS NULL
    AND NOT EXISTS (SELECT FROM users AS other WHERE other.email_key = ranked.key);

-- engine: data Computed the case-insensitive key of user names
UPDATE users
SET username_key = ranked.key
FROM (
    SELECT id, lower(username COLLATE "C") AS key,
        row_number() OVER (PARTITION BY lower(username COLLATE "C") ORDER BY created_at, id) AS place
    FROM users
    WHERE octet_length(username) = char_length(username)
) AS ranked
WHERE ranked.id = users.id AND ranked.place = 1 AND users.username_key IS NULL
    AND NOT EXISTS (SELECT FROM users AS other WHERE other.username_key = ranked.key);
