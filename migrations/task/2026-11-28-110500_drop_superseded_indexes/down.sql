-- Superseded by wider ones: nothing needs them back.
SELECT 1;
