-- A replica writes what it does into its row, so that the admin API can tell of all replicas. A binary that does not know this
-- column leaves it empty.

-- +goose Up
-- A long reader, such as a dump, would keep this waiting for its lock, and all heartbeats behind it. So it gives up: repeat it.
SET LOCAL lock_timeout = '2s';
ALTER TABLE replica ADD COLUMN report jsonb;

-- +goose Down
ALTER TABLE replica DROP COLUMN report;
