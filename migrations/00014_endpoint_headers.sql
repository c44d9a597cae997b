-- +goose Up
ALTER TABLE webhook_endpoint
    ADD COLUMN header_names text[] NOT NULL DEFAULT '{}', -- of what is sent along, for people
    ADD COLUMN headers      bytea; -- names and values as JSON, sealed, bound to id and field

-- +goose Down
ALTER TABLE webhook_endpoint DROP COLUMN header_names, DROP COLUMN headers;
