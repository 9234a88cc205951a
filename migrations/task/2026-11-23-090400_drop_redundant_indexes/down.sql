-- The dropped indexes carried no rows, and nothing of ours needs them back.
SELECT 1;
