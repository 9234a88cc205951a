-- Each is the beginning of an index that also holds the ties of a list. Dropped only where the definition is exactly ours: an index
-- of that name made for another purpose stays, and is a warning.
DO $$
DECLARE
    superseded record;
BEGIN
    FOR superseded IN
        SELECT c.relname AS name
        FROM pg_index i
        JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_class t ON t.oid = i.indrelid
        JOIN (VALUES
            ('idx_tasks_user_created_at', 'tasks', 'user_id, created_at'),
            ('idx_tasks_user_due_date', 'tasks', 'user_id, due_date'),
            ('idx_tasks_user_status', 'tasks', 'user_id, status')
        ) AS known (index_name, table_name, columns) ON known.index_name = c.relname AND known.table_name = t.relname
        WHERE c.relnamespace = current_schema()::regnamespace
            AND NOT i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
            AND known.columns = (
                SELECT string_agg(a.attname::text, ', ' ORDER BY k.place)
                FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
                JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
            )
    LOOP
        EXECUTE format('DROP INDEX %I', superseded.name);
    END LOOP;
END
$$;
