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
            ('idx_tasks_status', 'tasks', 'status'),
            ('idx_tasks_due_date', 'tasks', 'due_date'),
            ('idx_tasks_created_at', 'tasks', 'created_at'),
            ('idx_tasks_title', 'tasks', 'title'),
            ('idx_tasks_user_id', 'tasks', 'user_id')
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
