-- The keys are derived: they go with the columns.
SELECT 1;
