-- The values that were moved are not recorded.
SELECT 1;
