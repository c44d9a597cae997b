-- +goose Up
-- By how much the database's clock was set forward so far, as replicas saw it. What rate_window holds goes by the clock less that.
ALTER TABLE rate_account ADD COLUMN ahead_us bigint NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE rate_account DROP COLUMN ahead_us;
