-- The two system roles. A role of that name made by hand or by the legacy system becomes the system role, once:
-- is_system marks that it has happened, so that later edits of its description stay.

-- engine: data Roles without a display name take their name
-- engine: resolves column roles.display_name
UPDATE roles SET display_name = name WHERE display_name IS NULL;

-- engine: data Adopted the roles 'admin' and 'member' as system roles, with our description
UPDATE roles
SET display_name = seed.display_name, description = seed.description, is_active = true, is_system = true
FROM (VALUES
    ('admin', 'Administrator', 'May do everything'),
    ('member', 'Member', 'May manage their own tasks and profile')
) AS seed (name, display_name, description)
WHERE roles.name = seed.name AND roles.is_system IS NOT TRUE;

-- engine: data Created missing system roles
INSERT INTO roles (name, display_name, description, is_system) VALUES
    ('admin', 'Administrator', 'May do everything', true),
    ('member', 'Member', 'May manage their own tasks and profile', true)
ON CONFLICT (name) DO NOTHING;

-- engine: data Reactivated system roles
UPDATE roles SET is_active = true WHERE is_system AND NOT is_active;
