-- Which tasks had no owner shows in the nil UUID; which were 'pending' is not recorded.
SELECT 1;
