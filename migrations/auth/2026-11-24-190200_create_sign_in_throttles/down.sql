-- Loses how often sign-ins failed: everybody begins anew.
DROP TABLE IF EXISTS sign_in_throttles;
