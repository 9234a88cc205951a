-- A role that was given stays: which users had none is not recorded.
SELECT 1;
