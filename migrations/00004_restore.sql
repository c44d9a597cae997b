-- After a database was restored from a backup, a message may have been sent by any account of its pool, by processes of
-- which nothing is left but the provider's own record. Such a message is unknown with account_id 0: the calls that may
-- have been made stand here. A binary that does not know this table looks none of them up, and decides at the deadline.

-- +goose Up
CREATE TABLE unknown_call (
    id         uuid        NOT NULL REFERENCES unknown ON DELETE CASCADE,
    n          integer     NOT NULL, -- of the attempt
    account_id integer     NOT NULL,
    until      timestamptz NOT NULL, -- the call was made before this, if at all
    checks     integer     NOT NULL DEFAULT 0, -- look-ups made
    due        timestamptz NOT NULL, -- the next look-up; infinity: none
    absent     boolean     NOT NULL DEFAULT false, -- proved: it was not made
    PRIMARY KEY (id, n)
);
CREATE INDEX unknown_call_due ON unknown_call (account_id, due);

-- When "sendgate restore" last made the message unknown.
ALTER TABLE message ADD COLUMN restored_at timestamptz;

-- +goose Down
ALTER TABLE message DROP COLUMN restored_at;
DROP TABLE unknown_call;
