-- A call whose outcome stays unknown is repeated so many times and no more, elsewhere if possible; the accounts that a
-- message must avoid are still known after the wait. A message that may have been sent does not end as if it had not.

-- +goose Up
ALTER TABLE message ADD COLUMN resends smallint NOT NULL DEFAULT 0; -- calls made although an earlier one may have sent it
ALTER TABLE message ADD COLUMN resent_after integer NOT NULL DEFAULT 0; -- calls up to this number were not for the recipients that are open since
ALTER TABLE unknown ADD COLUMN avoid jsonb; -- as in ready

-- +goose Down
ALTER TABLE unknown DROP COLUMN avoid;
ALTER TABLE message DROP COLUMN resends, DROP COLUMN resent_after;
