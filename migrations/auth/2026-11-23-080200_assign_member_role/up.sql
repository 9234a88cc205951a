-- Nobody becomes an administrator by adoption: `admin bootstrap` makes one.

-- engine: data Users without a role became members
-- engine: resolves column users.role_id
UPDATE users SET role_id = (SELECT id FROM roles WHERE name = 'member') WHERE role_id IS NULL /* engine: batch users */;
