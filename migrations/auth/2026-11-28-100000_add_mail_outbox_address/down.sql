-- Loses whom waiting notices of a changed address go to. A program from before does not know their kind and leaves them alone.
ALTER TABLE mail_outbox DROP COLUMN IF EXISTS addressee;
ALTER TABLE mail_outbox DROP COLUMN IF EXISTS address;
