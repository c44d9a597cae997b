-- Claims are numbered in the order in which they are made. Who counts the open ones begins at the oldest that was open when he
-- last looked, and so never reads what ended before it: while a foreign transaction holds an old snapshot, that stays where it is.

-- +goose Up
CREATE SEQUENCE inflight_ticket;
ALTER TABLE inflight ADD COLUMN ticket bigint NOT NULL DEFAULT nextval('inflight_ticket');
ALTER SEQUENCE inflight_ticket OWNED BY inflight.ticket;
CREATE INDEX inflight_by_ticket ON inflight (ticket);

-- +goose Down
ALTER TABLE inflight DROP COLUMN ticket;
