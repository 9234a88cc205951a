-- Loses where waiting notices of a changed address go; without it they would go to the new address.
DELETE FROM mail_outbox WHERE kind = 'email_changed';
ALTER TABLE mail_outbox DROP COLUMN IF EXISTS address;
