-- Where a mail goes when that is not the account's own address: the one before, which is told of the change.
ALTER TABLE mail_outbox ADD COLUMN IF NOT EXISTS address character varying(255);
