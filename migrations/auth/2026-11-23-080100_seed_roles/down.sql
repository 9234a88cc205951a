-- The two seeded roles stay: users refer to them, and the table goes with the migration that made it.
SELECT 1;
