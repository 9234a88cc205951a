-- Indexes of the legacy system that only repeat another one or serve no query of ours. Dropped only where the
-- definition is exactly the legacy one: an index of that name made for another purpose stays, and is a warning.
DO $$
DECLARE
    legacy record;
BEGIN
    FOR legacy IN
        SELECT c.relname AS name
        FROM pg_index i
        JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_class t ON t.oid = i.indrelid
        JOIN (VALUES
            ('idx_users_email', 'users', 'email'),
            ('idx_users_username', 'users', 'username'),
            ('idx_users_is_active', 'users', 'is_active'),
            ('idx_users_role_active', 'users', 'role_id, is_active'),
            ('idx_roles_name', 'roles', 'name'),
            ('idx_roles_is_active', 'roles', 'is_active'),
            ('idx_refresh_tokens_token_hash', 'refresh_tokens', 'token_hash'),
            ('idx_refresh_tokens_user_active', 'refresh_tokens', 'user_id, is_revoked'),
            ('idx_refresh_tokens_active', 'refresh_tokens', 'is_revoked, expires_at'),
            ('idx_password_reset_tokens_token_hash', 'password_reset_tokens', 'token_hash'),
            ('idx_password_reset_tokens_valid', 'password_reset_tokens', 'is_used, expires_at'),
            ('idx_password_reset_tokens_user_valid', 'password_reset_tokens', 'user_id, is_used, expires_at')
        ) AS known (index_name, table_name, columns) ON known.index_name = c.relname AND known.table_name = t.relname
        WHERE c.relnamespace = current_schema()::regnamespace
            AND NOT i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
            AND known.columns = (
                SELECT string_agg(a.attname::text, ', ' ORDER BY k.place)
                FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
                JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
            )
    LOOP
        EXECUTE format('DROP INDEX %I', legacy.name);
    END LOOP;
END
$$;
