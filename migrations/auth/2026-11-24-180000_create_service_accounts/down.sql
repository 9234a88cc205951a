-- Loses every service account and its secrets: programs sign in no more.
DROP TABLE IF EXISTS service_account_secrets;
DROP TABLE IF EXISTS service_account_permissions;
DROP TABLE IF EXISTS service_accounts;
