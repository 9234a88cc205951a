-- PostgreSQL keeps times that no client of ours can read: infinity, years before 1 and after 9999. One such value would fail
-- every list that holds it. Values outside are moved to the nearest bound; an infinite one that may be absent becomes null.

-- engine: data Moved times of roles outside the years 1 to 9999 to the bound
UPDATE roles
SET
    created_at = least(greatest(created_at, '0001-01-01 00:00:00+00'), '9999-12-31 23:59:59+00'),
    updated_at = least(greatest(updated_at, '0001-01-01 00:00:00+00'), '9999-12-31 23:59:59+00')
WHERE created_at NOT BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59+00'
    OR updated_at NOT BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59+00';

-- engine: data Moved times of users outside the years 1 to 9999 to the bound
UPDATE users
SET
    created_at = least(greatest(created_at, '0001-01-01 00:00:00+00'), '9999-12-31 23:59:59+00'),
    updated_at = least(greatest(updated_at, '0001-01-01 00:00:00+00'), '9999-12-31 23:59:59+00'),
    last_login_at = CASE WHEN isfinite(last_login_at) THEN least(greatest(last_login_at, '0001-01-01 00:00:00+00'), '9999-12-31 23:59:59+00') END
WHERE created_at NOT BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59+00'
    OR updated_at NOT BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59+00'
    OR last_login_at NOT BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59+00';
