-- Whom a mail goes to when that is not the account as it is now: the address that the account had is told of the change, by the name
-- that the account had. Its kind has a mark of the address, so that each address has a row of its own.
ALTER TABLE mail_outbox ADD COLUMN IF NOT EXISTS address character varying(255);
ALTER TABLE mail_outbox ADD COLUMN IF NOT EXISTS addressee character varying(255);
